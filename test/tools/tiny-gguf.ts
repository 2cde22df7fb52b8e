import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { childVariables } from '../../config/environment.ts';
import { run } from '../../tools/run.ts';
import { runWeldline } from '../run-weldline.ts';
import { testLlamaCpp, testPythonTools } from './test-tools.ts';

const EXAMPLE = fileURLToPath(new URL('../../examples/tiny', import.meta.url));
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/weldline', import.meta.url));
export const TINY_ADAPTER = 'calculator';

/** The example as GGUF files, made by llama.cpp's converter. */
export interface TinyGguf {
  /** The calculator on its base, merged. */
  readonly mergedF16: string;
  readonly mergedQ8: string;
  readonly baseF32: string;
  /** The calculator, for the base. */
  readonly adapter: string;
}

/** Converts several things in one process, because importing torch takes longer than all of them. */
const CONVERT = `
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
for script, *arguments in json.loads(sys.argv[2]):
    sys.argv = [script, *arguments]
    runpy.run_path(f"{sys.path[0]}/{script}", run_name="__main__")
`;

/** Makes them once for all test files and runs, in the cache of this checkout. */
export async function tinyGguf(): Promise<TinyGguf> {
  const llamaCpp = await testLlamaCpp();
  const hash = createHash('sha256').update(CONVERT).update(llamaCpp.version);
  for (const path of ['base', `adapters/${TINY_ADAPTER}`]) {
    const name = path === 'base' ? 'model' : 'adapter_model';
    hash.update(await readFile(join(EXAMPLE, path, `${name}.safetensors`)));
  }
  const place = join(CACHE, `tiny-gguf-${hash.digest('hex').slice(0, 16)}`);
  if (!existsSync(place)) await make(place, llamaCpp.converter);
  return {
    mergedF16: join(place, 'merged-f16.gguf'),
    mergedQ8: join(place, 'merged-q8_0.gguf'),
    baseF32: join(place, 'base-f32.gguf'),
    adapter: join(place, 'adapter.gguf'),
  };
}

async function make(place: string, converter: string): Promise<void> {
  await mkdir(CACHE, { recursive: true });
  const directory = await mkdtemp(`${place}.`);
  const base = join(EXAMPLE, 'base');
  const adapter = join(EXAMPLE, 'adapters', TINY_ADAPTER);
  const merged = join(directory, 'merged');
  const { exitCode, stderr } = await runWeldline(
    ['merge', '--base', base, '--adapter', adapter, '--output', merged],
    { ...childVariables(), WELDLINE_HOME: join(directory, 'home') },
  );
  if (exitCode !== 0) throw new Error(stderr);
  const model = (source: string, type: string, name: string) => [
    ...['convert_hf_to_gguf.py', source, '--outtype', type, '--model-name', 'tiny'],
    ...['--outfile', join(directory, name)],
  ];
  const tasks = [
    model(merged, 'f16', 'merged-f16.gguf'),
    model(merged, 'q8_0', 'merged-q8_0.gguf'),
    model(base, 'f32', 'base-f32.gguf'),
    [
      ...['convert_lora_to_gguf.py', adapter, '--base', base, '--outtype', 'f32'],
      ...['--outfile', join(directory, 'adapter.gguf')],
    ],
  ];
  await run({
    file: (await testPythonTools()).python,
    args: ['-c', CONVERT, converter, JSON.stringify(tasks)],
    env: childVariables({ HF_HUB_OFFLINE: '1', TRANSFORMERS_OFFLINE: '1' }),
  });
  // Another test file may have been quicker.
  await rename(directory, place).catch(() => rm(directory, { recursive: true }));
}
