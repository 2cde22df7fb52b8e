import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withoutOutput, withSyncOf } from './contestants.ts';
import type { Contestant } from './measurement.ts';
import type { BenchModel } from './model-data.ts';
import { runProcess } from './run-process.ts';

const ROOT = new URL('../', import.meta.url);
const PEFT_PYTHON = fileURLToPath(new URL('.oracle/bin/python', ROOT));
const PEFT_SCRIPT = fileURLToPath(new URL('oracle/peft_merge.py', ROOT));
const MERGEKIT_PYTHON = fileURLToPath(new URL('.oracle-mergekit/bin/python', ROOT));
const MERGEKIT = join(dirname(MERGEKIT_PYTHON), 'mergekit-yaml');

/** Users' Pythons keep what they have compiled; one that must not takes 10 s longer to import. */
const VARIABLES = { HF_HUB_OFFLINE: '1', PYTHONDONTWRITEBYTECODE: '' };

export const PEFT = 'PEFT';
export const MERGEKIT_LORA = 'mergekit-yaml, base+adapter';

/** PEFT as its users run it: load, merge, save; with the imports that the process needs. */
export function peftContestant(model: BenchModel): Contestant {
  return {
    name: PEFT,
    inputs: [model.base, model.adapter],
    ...missing(PEFT_PYTHON, 'npm run setup:oracle'),
    prepare: (signal) =>
      importOnce(PEFT_PYTHON, 'peft, transformers.models.llama.modeling_llama', signal),
    async run(output, signal) {
      const args = ['--base', model.base, '--adapter', model.adapter, '--out', output];
      const run = await runPython(PEFT_PYTHON, [PEFT_SCRIPT, ...args], signal);
      const { seconds: parts, peak_rss_bytes: peak } = JSON.parse(run.stdout) as {
        seconds: Record<string, number>;
        peak_rss_bytes: number;
      };
      await requireWeights(output, model);
      return { ...withoutOutput(run, Math.max(peak, run.peakMemoryBytes)), parts };
    },
  };
}

/**
 * mergekit's way with a LoRA: `base+adapter` is merged by PEFT into a cache, and the merge method,
 * here the one that only passes tensors through, reads it from there.
 */
export function mergekitContestant(model: BenchModel, scratch: string): Contestant {
  const cache = join(scratch, 'mergekit-lora');
  const config = join(scratch, 'mergekit.yaml');
  return {
    name: MERGEKIT_LORA,
    inputs: [model.base, model.adapter],
    ...missing(MERGEKIT_PYTHON, 'npm run setup:mergekit'),
    prepare: (signal) =>
      importOnce(
        MERGEKIT_PYTHON,
        'mergekit.merge, transformers.models.llama.modeling_llama',
        signal,
      ),
    async reset() {
      await rm(cache, { recursive: true, force: true });
      await mkdir(cache, { recursive: true });
      const source = { model: `${model.base}+${model.adapter}` };
      const recipe = { merge_method: 'passthrough', dtype: 'bfloat16', models: [source] };
      await writeFile(config, JSON.stringify(recipe));
    },
    async run(output, signal) {
      // The model has no tokenizer that could be copied.
      const options = ['--lora-merge-cache', cache, '--no-copy-tokenizer', '--quiet'];
      const args = [config, output, ...options];
      const run = await runPython(MERGEKIT, args, signal);
      const measurement = await withSyncOf(output, run);
      await requireWeights(output, model);
      await rm(cache, { recursive: true, force: true });
      return measurement;
    },
  };
}

/** Versions of the Python packages of the contestants that are set up. */
export function pythonVersions(): Record<string, string> {
  return {
    ...versionsOf(PEFT_PYTHON, ['torch', 'transformers', 'peft']),
    ...versionsOf(MERGEKIT_PYTHON, ['mergekit']),
  };
}

function versionsOf(python: string, packages: readonly string[]): Record<string, string> {
  if (!existsSync(python)) return {};
  const script =
    'import json, sys, importlib.metadata as m;' +
    'print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))';
  const args = ['-c', script, ...packages];
  const { stdout, status, stderr } = spawnSync(python, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${python} cannot name its packages:\n${stderr}`);
  return JSON.parse(stdout) as Record<string, string>;
}

function missing(program: string, command: string): { missing?: string } {
  return existsSync(program) ? {} : { missing: `it is not set up: ${command}` };
}

/** Compiles the modules and brings them into the cache, which no user pays for every time. */
async function importOnce(python: string, modules: string, signal: AbortSignal): Promise<void> {
  await runPython(python, ['-c', `import ${modules}`], signal);
}

function runPython(program: string, args: readonly string[], signal: AbortSignal) {
  return runProcess(program, args, { signal, variables: VARIABLES });
}

/** A tool that left weights out, or stored them wider, would be compared with another task. */
async function requireWeights(output: string, { weightBytes }: BenchModel): Promise<void> {
  const names = (await readdir(output)).filter((name) => name.endsWith('.safetensors'));
  const sizes = await Promise.all(names.map((name) => stat(join(output, name))));
  const bytes = sizes.reduce((sum, { size }) => sum + size, 0);
  if (Math.abs(bytes / weightBytes - 1) < 0.01) return;
  throw new Error(`${output} holds ${bytes} bytes of weights; the base has ${weightBytes}`);
}
