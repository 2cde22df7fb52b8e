/** The package as it is published: compiled, under the Node.js of the machine. */
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { addonName } from '../../kernels/native-kernel.ts';
import { runWeldline } from '../run-weldline.ts';

const root = join(import.meta.dirname, '../..');
const main = join(root, 'dist/cli/main.js');
const base = join(root, 'examples/tiny/base');
const adapter = join(root, 'examples/tiny/adapters/calculator');

let directory: string;

beforeAll(async () => {
  if (!existsSync(main)) throw new Error(`${main} is missing: run npm run build first.`);
  directory = await mkdtemp(join(tmpdir(), 'weldline-package-'));
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

/** The Node.js that the machine had before `npm ci` brought another; it may be as old as 20. */
function machineNode(): string {
  const places = (process.env['PATH'] ?? '').split(delimiter);
  const own = places.filter((place) => !place.includes('node_modules'));
  return own.map((place) => join(place, 'node')).find(existsSync) ?? process.execPath;
}

test('runs on the Node.js of the machine and merges the same bytes as the sources do', async () => {
  const args = (output: string) => [
    ...['merge', '--base', base, '--adapter', adapter, '--output', join(directory, output)],
    '--json',
  ];
  const env = { WELDLINE_HOME: join(directory, 'home') };
  const packaged = await execa(machineNode(), [main, ...args('packaged')], { env });
  const fromSources = await runWeldline(args('sources'), env);
  const digests = (json: string) => (JSON.parse(json) as { files: unknown }).files;
  expect(digests(packaged.stdout)).toEqual(digests(fromSources.stdout));
  const weights = await readFile(join(directory, 'packaged/model.safetensors'));
  expect(weights.equals(await readFile(join(directory, 'sources/model.safetensors')))).toBe(true);
});

test('holds the kernels, the workflow bundles and what children run, and every file that package.json promises', () => {
  const needed = [
    ...['kernels/merge.wasm', 'cli/main.js', 'tools/leash.js'],
    ...['workflows/workflow-bundle.js', 'workflows/workflow-bundle-traced.js'],
    ...['tools/gguf/quantize-process.js', 'tools/llama-cpp/run-model.js'],
    ...['tools/llama-cpp-packages/package-lock.json', 'tools/python/requirements.lock'],
    ...['tools/python/run_converter.py', 'tools/python/quantize.py'],
    'tools/python/transformers_runner.py',
  ];
  for (const path of needed) {
    expect(existsSync(join(root, 'dist', path)), path).toBe(true);
  }
  const addon = `kernels/${addonName()}`;
  expect(existsSync(join(root, 'dist', addon))).toBe(existsSync(join(root, addon)));
  const { bin, files } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    bin: Record<string, string>;
    files: string[];
  };
  for (const path of [...Object.values(bin), ...files]) {
    expect(existsSync(join(root, path)), path).toBe(true);
  }
});
