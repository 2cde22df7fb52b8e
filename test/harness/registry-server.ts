import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('../../.services/registry/docker-registry', import.meta.url));
/** Beside what it logged so far; it is up in well under a second. */
const START_TIMEOUT_MS = 20_000;

/** Becomes the registry, beside something that kills it when this process is gone, however it ended. */
const LEASHED =
  'exec 3<&0; { cat <&3; kill -9 $$; } >/dev/null 2>&1 & exec "$0" serve "$1" </dev/null';

export const REGISTRY_USER = 'tester';
export const REGISTRY_PASSWORD = 'canary-registry-51c9';
/** Of the password, with bcrypt, which is all that the registry takes. */
const HTPASSWD = `${REGISTRY_USER}:$2b$04$weldlinetestsweldlineeDLzx.Q08MEwaXCKB2wg6jwfKBqLxK5O\n`;

const PAIR = Buffer.from(`${REGISTRY_USER}:${REGISTRY_PASSWORD}`).toString('base64');

export interface RegistryServer {
  /** `http://127.0.0.1:<port>`. */
  readonly origin: string;
  /** The header that it asks for, if it does. */
  readonly authorization: string;
  /** Directory of its repositories, as the registry keeps them. */
  readonly repositories: string;
  close(): Promise<void>;
}

export interface RegistryOptions {
  /** Asks for {@link REGISTRY_USER} and {@link REGISTRY_PASSWORD}. */
  readonly hasPassword?: boolean;
  /** Refuses to delete, as registries do by default. */
  readonly keepsAll?: boolean;
}

/** The CNCF registry with its data in a directory of its own; ends with this process. */
export async function startRegistry(options: RegistryOptions = {}): Promise<RegistryServer> {
  const directory = await mkdtemp(join(tmpdir(), 'weldline-registry-'));
  const data = join(directory, 'data');
  const config: Record<string, unknown> = {
    version: 0.1,
    log: { level: 'info', accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: data },
      delete: { enabled: options.keepsAll !== true },
      maintenance: { uploadpurging: { enabled: false } },
    },
    http: { addr: '127.0.0.1:0', secret: 'tests' },
  };
  if (options.hasPassword === true) {
    const path = join(directory, 'htpasswd');
    await writeFile(path, HTPASSWD);
    config['auth'] = { htpasswd: { realm: 'tests', path } };
  }
  // JSON is YAML.
  await writeFile(join(directory, 'config.yml'), JSON.stringify(config));
  const child = spawn('/bin/sh', ['-c', LEASHED, PROGRAM, join(directory, 'config.yml')], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { PATH: '/usr/bin:/bin' },
  });
  const kill = () => {
    child.stdin.destroy();
    child.kill('SIGKILL');
  };
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  try {
    const port = await portOf(child.stderr, ended);
    return {
      origin: `http://127.0.0.1:${port}`,
      authorization: `Basic ${PAIR}`,
      repositories: join(data, 'docker', 'registry', 'v2', 'repositories'),
      async close() {
        kill();
        await ended;
        await rm(directory, { recursive: true, force: true });
      },
    };
  } catch (error) {
    kill();
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function portOf(log: NodeJS.ReadableStream, ended: Promise<void>): Promise<string> {
  const lines: string[] = [];
  const listening = new Promise<string>((resolve) => {
    // Read to the end of its life, since a full pipe would stop it.
    createInterface({ input: log }).on('line', (line) => {
      lines.push(line);
      const port = /listening on 127\.0\.0\.1:(\d+)/.exec(line)?.[1];
      if (port !== undefined) resolve(port);
    });
  });
  const late = new Promise<undefined>((resolve) => {
    setTimeout(resolve, START_TIMEOUT_MS, undefined).unref();
  });
  const port = await Promise.race([listening, ended, late]);
  if (typeof port === 'string') return port;
  throw new Error(`the registry did not start: ${lines.join('\n')}`);
}

/** As `docker login` leaves it. */
export async function writeDockerConfig(
  directory: string,
  registries: readonly string[],
): Promise<void> {
  const auths = Object.fromEntries(registries.map((registry) => [registry, { auth: PAIR }]));
  await writeFile(join(directory, 'config.json'), JSON.stringify({ auths }));
}
