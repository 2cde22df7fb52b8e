import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DCLinter } from 'dclint';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { ROLES } from '../../workers/roles.ts';
import { presenceQueue } from '../../workers/task-queues.ts';
import {
  OVERLAYS,
  parseEnvironmentFile,
  ROOT,
  readProject,
  readText,
  startedBefore,
  variablesRead,
} from './compose-project.ts';

const project = readProject();
const services = Object.entries(project.services);
const workers = services.filter(([name]) => name.startsWith('worker-'));
const settings = parseEnvironmentFile(readText('.env.example'));

/** What the files take from `.env`: name, and `:?` or `:-` with what follows. */
const references = ['docker-compose.yml', ...OVERLAYS].flatMap((path) =>
  [...readText(path).matchAll(/\$\{(\w+)([^}]*)\}/g)].map(([, name = '', rest = '']) => ({
    name,
    rest,
  })),
);

describe('the schema', () => {
  let directory: string;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'weldline-compose-'));
  });

  afterAll(() => rmSync(directory, { recursive: true }));

  interface Linted {
    readonly messages: readonly { readonly line: number; readonly message: string }[];
  }

  /** The published schema of the Compose specification, and rules on top of it. */
  function problemsOf(path: string): string[] {
    const linter = new DCLinter({
      rules: {
        // The worker's image is built here and named.
        'no-build-and-image': 0,
        // Services stand in the order in which they start.
        'services-alphabetical-order': 0,
        'service-keys-order': 0,
        'require-quotes-in-ports': [1, { quoteType: 'double' }],
      },
      quiet: false,
      debug: false,
      exclude: [],
    });
    const results: readonly Linted[] = linter.lintFiles([path], false);
    return results.flatMap(({ messages }) =>
      messages.map(({ line, message }) => `${line}: ${message}`),
    );
  }

  test.each(['docker-compose.yml', ...OVERLAYS])('%s keeps to it', (path) => {
    expect(problemsOf(join(ROOT, path))).toEqual([]);
  });

  test.each([
    ['an unknown key', /^ {4}restart:/m, '    restarts:', /services.postgres.*additional prop/],
    ['a list for a map', /^ {2}postgres-data:\n/m, '  - postgres-data\n', /parsing|sequence|YAML/i],
    ['an open port', /"127\.0\.0\.1:[^"]+:7233"/, '"7233:7233"', /interface/],
    ['a floating tag', /postgres:[\d.]+/, 'postgres:latest', /tag/],
  ])('%s is found', (_, from, to, message) => {
    const text = readText('docker-compose.yml');
    expect(text).toMatch(from);
    const path = join(directory, 'docker-compose.yml');
    writeFileSync(path, text.replace(from, to));
    expect(problemsOf(path)).toEqual([expect.stringMatching(message)]);
  });
});

describe('the order of the start', () => {
  test('a condition can be met by the service it is on', () => {
    for (const [name, { depends_on = {} }] of services) {
      for (const [dependency, { condition }] of Object.entries(depends_on)) {
        const target = project.services[dependency];
        const edge = `${name} -> ${dependency}`;
        expect(target, edge).toBeDefined();
        if (condition === 'service_healthy') expect(target?.healthcheck, edge).toBeDefined();
        // What is restarted whatever happens never completes.
        else expect(target?.restart, edge).toMatch(/^on-failure:\d+$/);
      }
    }
  });

  test('database, schema, server, namespace, then the workers and the web interface', () => {
    const chain = ['temporal-namespace', 'temporal', 'temporal-schema', 'postgres'];
    for (const name of [...workers.map(([worker]) => worker), 'temporal-ui', 'weldline']) {
      expect([...startedBefore(project, name)], name).toEqual(chain);
    }
    expect(startedBefore(project, 'postgres')).toEqual(new Set());
    expect([...startedBefore(project, 's3-bucket')]).toEqual(['s3']);
  });

  test('there is a worker for every role, and `up` starts them all', () => {
    expect(workers.map(([, { command = [] }]) => command.slice(2))).toEqual(
      ROLES.map((role) => [role]),
    );
    for (const [name, { profiles }] of workers) expect(profiles, name).toBeUndefined();
  });

  test('what runs for good has a health check and comes back after a crash', () => {
    const oneShot = services.filter(([, { restart }]) => restart.startsWith('on-failure'));
    expect(oneShot.map(([name]) => name)).toEqual([
      ...['temporal-schema', 'temporal-namespace', 's3-bucket'],
    ]);
    for (const [name, { restart, healthcheck, build }] of services) {
      if (restart.startsWith('on-failure')) continue;
      if (name === 'weldline') continue;
      expect(restart, name).toBe('unless-stopped');
      if (build === undefined) expect(healthcheck, name).toBeDefined();
    }
    expect(readText('Dockerfile')).toContain('\nHEALTHCHECK ');
  });
});

describe('what the outside sees', () => {
  test('ports are published on the loopback interface only', () => {
    const published = services.flatMap(([, { ports = [] }]) => ports);
    expect(published.length).toBe(3);
    for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:\$\{\w+:-\d+\}:\d+$/);
  });

  test('the database is reached by the server and its set-up alone', () => {
    const inside = services.filter(([, { networks = [] }]) => networks.includes('database'));
    expect(inside.map(([name]) => name)).toEqual(['postgres', 'temporal-schema', 'temporal']);
    expect(project.networks).toEqual({ database: { internal: true } });
  });
});

describe('versions', () => {
  const { version, devDependencies } = JSON.parse(readText('package.json')) as {
    version: string;
    devDependencies: Record<string, string>;
  };

  test('every image has a version', () => {
    for (const [name, { image }] of services) expect(image, name).toMatch(/:v?\d+\.\d+(\.\d+)?$/);
    const built = services.filter(([, { build }]) => build !== undefined);
    expect(built.length).toBe(workers.length + 2);
    for (const [name, { image }] of built) expect(image, name).toBe(`weldline:${version}`);
  });

  test('server and tools are of one version', () => {
    const tags = ['temporal-schema', 'temporal', 'temporal-namespace'].map(
      (name) => project.services[name]?.image.split(':')[1],
    );
    expect(new Set(tags).size).toBe(1);
  });

  test('the image is built with the Node that the tests run on', () => {
    const bases = [...readText('Dockerfile').matchAll(/^FROM (\S+)/gm)].map(([, image]) => image);
    expect(bases.length).toBe(2);
    for (const base of bases) expect(base).toBe(`node:${devDependencies['node']}-bookworm-slim`);
  });
});

const SECRET = /PASSWORD|PASSPHRASE|TOKEN|KEY/;

describe('settings', () => {
  test('every variable is explained in .env.example, and every one there is used', () => {
    const used = new Set(references.map(({ name }) => name));
    // Compose itself reads the profiles.
    expect([...used, 'COMPOSE_PROFILES'].sort()).toEqual([...settings.keys()].sort());
  });

  test('each has a default or stops the start with a message', () => {
    for (const { name, rest } of references) {
      expect(rest, name).toMatch(/^:(-|\?copy \.env\.example to \.env)/);
    }
  });

  test('defaults are those of .env.example, and no secret has one', () => {
    for (const { name, rest } of references) {
      // Nothing means AWS there.
      if (name === 'AWS_ENDPOINT_URL_S3') expect(settings.get(name)).toBe('http://s3:7070');
      else if (rest.startsWith(':-')) expect(rest.slice(2), name).toBe(settings.get(name));
    }
    const secrets = [...settings.keys()].filter((name) => SECRET.test(name));
    expect(secrets).toContain('POSTGRES_PASSWORD');
    expect(secrets).toContain('AWS_SECRET_ACCESS_KEY');
    for (const name of secrets) expect(settings.get(name), name).toBe('');
    expect(references.filter(({ name }) => name === 'POSTGRES_PASSWORD')).toSatisfy(
      (found: typeof references) =>
        found.length === 3 && found.every(({ rest }) => rest.startsWith(':?')),
    );
  });

  test('.env stays out of git', () => {
    expect(readText('.gitignore').split('\n')).toContain('.env');
  });

  test('weldline reads every variable that the worker is given', () => {
    const read = variablesRead();
    const environment = Object.keys(project.services['worker-control']?.environment ?? {});
    expect(environment.filter((name) => !read.has(name))).toEqual([]);
    expect(environment).toContain('TEMPORAL_ADDRESS');
    const image = [...readText('Dockerfile').matchAll(/^(?:ENV| {3}) (\w+)=/gm)];
    // Of Node, npm and pip.
    const others = ['NODE_ENV', 'npm_config_cache', 'PIP_CACHE_DIR'];
    const names = image.map(([, name = '']) => name).filter((name) => !others.includes(name));
    expect(names).toEqual(['WELDLINE_HOME', 'HF_HOME']);
    expect(names.filter((name) => !read.has(name))).toEqual([]);
  });
});

describe('files', () => {
  const mounts = services.flatMap(([, { volumes = [] }]) => volumes);

  test('every file that is mounted exists, and is read-only', () => {
    const files = mounts.filter((mount) => mount.startsWith('./'));
    expect(files.length).toBe(3);
    for (const mount of files) {
      const [source = '', , mode] = mount.split(':');
      expect(existsSync(join(ROOT, source)), source).toBe(true);
      expect(mode, source).toBe('ro');
    }
  });

  test('every named volume is declared, and used', () => {
    const named = mounts
      .filter((mount) => /^[a-z]/.test(mount))
      .map((mount) => mount.split(':')[0]);
    expect([...new Set(named)].sort()).toEqual(Object.keys(project.volumes).sort());
  });

  test('the workers keep their state in volumes of the image', () => {
    const volumes = new Set(workers.map(([, service]) => service.volumes?.join()));
    expect(volumes.size).toBe(1);
    const targets = workers[0]?.[1].volumes?.map((mount) => mount.split(':').at(-1));
    for (const directory of ['/var/lib/weldline', '/var/cache/huggingface']) {
      expect(targets).toContain(directory);
      expect(readText('Dockerfile')).toContain(`=${directory}`);
    }
  });

  test('the image gets everything that the build compiles', () => {
    const { include } = JSON.parse(readText('tsconfig.build.json')) as { include: string[] };
    const sent = readText('.dockerignore').split('\n');
    expect(include.filter((folder) => !sent.includes(`!${folder}`))).toEqual([]);
  });

  test('the health check asks for the task queue of the workers', () => {
    expect(readText('deploy/worker-health.mjs')).toContain(`TASK_QUEUE = \`${presenceQueue('')}`);
  });
});

describe('what is laid over it', () => {
  const monitoring = readProject('deploy/compose.monitoring.yml');

  test('Prometheus asks every worker, and where each says that it listens', () => {
    interface Scrapes {
      readonly scrape_configs: readonly {
        readonly dns_sd_configs: readonly {
          readonly names: readonly string[];
          readonly port: number;
        }[];
      }[];
    }
    const { scrape_configs } = parse(readText('deploy/prometheus.yml')) as Scrapes;
    const [asked] = scrape_configs.flatMap(({ dns_sd_configs }) => dns_sd_configs);
    expect(asked?.names).toEqual(workers.map(([name]) => name));
    for (const [name, { environment }] of workers) {
      expect(environment?.['WELDLINE_METRICS_ADDRESS'], name).toBe(`0.0.0.0:${asked?.port}`);
    }
  });

  test('its files exist, its ports are on the loopback interface, its images have versions', () => {
    const all = Object.values(monitoring.services);
    const files = all.flatMap(({ volumes = [] }) =>
      volumes.filter((each) => each.startsWith('./')),
    );
    expect(files.length).toBe(3);
    for (const mount of files) {
      expect(mount).toMatch(/:ro$/);
      expect(existsSync(join(ROOT, mount.split(':')[0] ?? '')), mount).toBe(true);
    }
    for (const port of all.flatMap(({ ports = [] }) => ports))
      expect(port).toMatch(/^127\.0\.0\.1:/);
    for (const { image } of all) expect(image).toMatch(/:v?\d+\.\d+\.\d+$/);
  });

  test('the GPUs are given to a worker that there is', () => {
    const { services: given } = readProject('deploy/compose.gpu.yml');
    expect(Object.keys(given)).toEqual(['worker-gpu']);
    expect(Object.keys(project.services)).toContain('worker-gpu');
  });
});
