/** The shape of the code base: what may import what, how long files are, what is said where. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ERROR_CODES } from '../engine/errors.ts';
import { ENGINE_VERSION } from '../engine/version.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** What each folder of the product may import from, beside itself. Imports only go down. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  cli: [
    ...['workflows', 'workers', 'activities', 'config', 'sources', 'publishers', 'tools'],
    ...['conversion', 'evaluation', 'audit', 'attest', 'report', 'engine', 'kernels'],
  ],
  workers: [
    ...['activities', 'config', 'sources', 'publishers', 'tools', 'conversion', 'evaluation'],
    ...['attest', 'report', 'engine', 'kernels'],
  ],
  activities: [
    ...['config', 'sources', 'publishers', 'tools', 'conversion', 'evaluation', 'report'],
    ...['attest', 'engine', 'kernels'],
  ],
  evaluation: ['conversion', 'tools', 'config', 'engine'],
  conversion: ['tools', 'config', 'engine'],
  tools: ['config', 'engine'],
  sources: ['remote', 'engine'],
  publishers: ['remote', 'config', 'engine'],
  remote: ['config', 'engine'],
  attest: ['config', 'engine'],
  audit: ['sources', 'conversion', 'attest', 'config', 'engine'],
  report: ['evaluation', 'conversion', 'config', 'engine'],
  config: ['engine'],
  engine: ['kernels'],
  kernels: [],
  workflows: [],
};

/** What workflows know of the rest is types: the sandbox must not load it. */
const TYPES_FOR: Readonly<Record<string, readonly string[]>> = {
  workflows: ['activities', 'conversion', 'evaluation', 'engine', 'config', 'sources'],
};

const FILE_LINES_MAX = 300;
/** Tests list cases, which are better in one file than torn apart. */
const TEST_LINES_MAX = 400;

interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** Folders whose files are kept under version control, and files at the root. */
const FOLDERS = [
  ...Object.keys(MAY_IMPORT),
  'bench',
  'deploy',
  'docs',
  'examples',
  'oracle',
  'scripts',
  'test',
];
const GENERATED = /(^|\/)(node_modules|__pycache__|data)\//;

/** Paths of kept files with one of the endings, whether or not this is a clone. */
function filesThatEnd(...endings: string[]): string[] {
  const below = FOLDERS.filter((folder) => existsSync(join(ROOT, folder))).flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map(
      (path) => `${folder}/${path}`,
    ),
  );
  return [...readdirSync(ROOT), ...below].filter(
    (path) => !GENERATED.test(path) && endings.some((ending) => path.endsWith(ending)),
  );
}

function read(path: string): SourceFile {
  return { path, text: readFileSync(join(ROOT, path), 'utf8') };
}

const all = filesThatEnd('.ts').map(read);
const product = all.filter(({ path }) => path.split('/')[0]! in MAY_IMPORT);

interface Import {
  readonly path: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

function importsOf({ path, text }: SourceFile): Import[] {
  const pattern =
    /(?:^|\n)\s*(?:import|export)\s+(type\s)?[^'";]*?from\s+'([^']+)'|import\(\s*'([^']+)'\s*\)|(?:^|\n)import\s+'([^']+)'/g;
  return [...text.matchAll(pattern)].map(([, type, from, dynamic, bare]) => ({
    path,
    target: from ?? dynamic ?? bare ?? '',
    typeOnly: type !== undefined,
  }));
}

function folderOf(target: string, from: string): string | undefined {
  if (!target.startsWith('.')) return undefined;
  return normalize(join(dirname(from), target)).split('/')[0];
}

describe('the layout', () => {
  it('has folders with a place in the import table', () => {
    const folders = new Set(product.map(({ path }) => path.split('/')[0]));
    expect([...folders].sort()).toEqual(Object.keys(MAY_IMPORT).sort());
  });

  it('imports only downwards', () => {
    const wrong = product.flatMap(importsOf).filter(({ path, target, typeOnly }) => {
      const folder = path.split('/')[0]!;
      const other = folderOf(target, path);
      if (other === undefined || other === folder) return false;
      const allowed = [...MAY_IMPORT[folder]!, ...(typeOnly ? (TYPES_FOR[folder] ?? []) : [])];
      return !allowed.includes(other);
    });
    expect(wrong).toEqual([]);
  });

  it('has an engine without network, Temporal, clock or chance', () => {
    const engine = product.filter(({ path }) => /^(engine|kernels)\//.test(path));
    const forbidden =
      /Date\.now|new Date\(|Math\.random|randomBytes|randomUUID|performance\.now|\bfetch\(|from '(@temporalio|node:(http|https|net|tls|dgram|child_process))/;
    expect(engine.length).toBeGreaterThan(30);
    expect(engine.filter(({ text }) => forbidden.test(text)).map(({ path }) => path)).toEqual([]);
  });

  it('reads the environment in one place', () => {
    const readers = product.filter(({ text }) =>
      /process\.env|\benv\b.*from 'node:process'/.test(text),
    );
    expect(readers.map(({ path }) => path)).toEqual(['config/environment.ts']);
  });

  it('decides in one place what may be tried again', () => {
    const deciders = product.filter(({ text }) => /nonRetryable: [^t]/.test(text));
    expect(deciders.map(({ path }) => path)).toEqual(['activities/failures.ts']);
  });

  it('has no default exports and nothing that prints past the output', () => {
    const wrong = product.filter(({ text }) => /^export default|\bconsole\.\w+\(/m.test(text));
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });

  it('has files of a length that can be read', () => {
    const long = all
      .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
      .filter(
        ({ path, lines }) => lines > (path.startsWith('test/') ? TEST_LINES_MAX : FILE_LINES_MAX),
      );
    expect(long).toEqual([]);
  });

  it('has files named in kebab-case, none after a kind of drawer', () => {
    const wrong = all
      .map(({ path }) => path)
      .filter((path) => {
        const name = path.split('/').at(-1) ?? '';
        return (
          !/^[a-z0-9]+(-[a-z0-9]+)*(\.(test|config|d))?\.ts$/.test(name) ||
          /^(utils?|helpers?|manager|common|misc)\b/.test(name)
        );
      });
    expect(wrong).toEqual([]);
  });
});

describe('what is said in several places', () => {
  it('is one version', () => {
    const { version } = JSON.parse(read('package.json').text) as { version: string };
    expect(version).toBe(ENGINE_VERSION);
  });

  it('is error codes that something throws', () => {
    const users = product
      .filter(({ path }) => path !== 'engine/errors.ts' && path !== 'activities/failures.ts')
      .map(({ text }) => text)
      .join('\n');
    expect(ERROR_CODES.filter((code) => !users.includes(`'${code}'`))).toEqual([]);
    const used = new Set(
      [...users.matchAll(/WeldlineError\(\s*'([^']+)'/g)].map(([, code]) => code),
    );
    expect(
      [...used].filter((code) => !(ERROR_CODES as readonly string[]).includes(code ?? '')),
    ).toEqual([]);
  });
});

describe('what is committed', () => {
  it('names no place of one machine', () => {
    const machine = /\/(work|root|Users)\//;
    const texts = filesThatEnd('.ts', '.md', '.json', '.yml', '.yaml', '.py', 'Dockerfile').filter(
      (path) => path !== 'package-lock.json' && path !== 'test/layout.test.ts',
    );
    const wrong = texts.map(read).filter(({ text }) => machine.test(text));
    expect(wrong.map(({ path, text }) => `${path}: ${machine.exec(text)?.[0]}`)).toEqual([]);
  });

  it('leaves it to the user which registry packages come from', () => {
    expect(read('package-lock.json').text).not.toMatch(/"resolved": "https?:/);
    expect(read('.npmrc').text).not.toMatch(/registry\s*=/);
  });

  it('holds no test that is skipped, alone or yet to be written', () => {
    const wrong = /\b(it|test|describe)\.(skip|only|todo|fails)\b|\b(xit|xdescribe)\(/;
    const tests = all.filter(({ path }) => path !== 'test/layout.test.ts');
    expect(tests.filter(({ text }) => wrong.test(text)).map(({ path }) => path)).toEqual([]);
    const unfinished = /\b(TODO|FIXME|XXX|HACK)\b/;
    expect(tests.filter(({ text }) => unfinished.test(text)).map(({ path }) => path)).toEqual([]);
  });
});
