import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { childVariables } from '../../../config/environment.ts';
import type { ConversionStep } from '../../../conversion/conversion-step.ts';
import type { ConversionTools, ConvertOptions } from '../../../conversion/convert-options.ts';
import { runWeldline } from '../../run-weldline.ts';
import { testLlamaCpp, testPythonTools } from '../../tools/test-tools.ts';

const EXAMPLE = fileURLToPath(new URL('../../../examples/tiny', import.meta.url));
const FIXTURES = fileURLToPath(new URL('./fixtures', import.meta.url));

export const BASE = join(EXAMPLE, 'base');
export const CALCULATOR = join(EXAMPLE, 'adapters/calculator');
/** By the real llama-imatrix, of `CALIBRATION`. */
export const IMATRIX = join(FIXTURES, 'imatrix.gguf');
export const CALIBRATION = join(FIXTURES, 'calibration.txt');
export const MODEL_NAME = 'Tiny Calculator';
/** What the adapter was trained to answer, and the base does not. */
export const QUESTION = 'Q: 9+8 =';
export const ANSWER = '[17]';

/** SHA-256 of what llama.cpp's own programs make by hand; `make-golden.ts` recorded them. */
export interface Golden {
  readonly llamaCpp: string;
  readonly converted: Readonly<Record<string, string>>;
  readonly quantized: Readonly<Record<string, string>>;
  readonly withImatrix: Readonly<Record<string, string>>;
  readonly needImatrix: readonly string[];
  readonly split: readonly string[];
}

export async function readGolden(): Promise<Golden> {
  return JSON.parse(await readFile(join(FIXTURES, 'golden.json'), 'utf8')) as Golden;
}

/** The example's calculator merged into its base, in a directory of its own. */
export async function mergeExample(): Promise<{ readonly root: string; readonly merged: string }> {
  const root = await mkdtemp(join(tmpdir(), 'weldline-gguf-'));
  const merged = join(root, 'merged');
  const args = ['merge', '--base', BASE, '--adapter', CALCULATOR, '--output', merged];
  const { exitCode, stderr } = await runWeldline(args, { ...childVariables() });
  if (exitCode !== 0) throw new Error(stderr);
  return { root, merged };
}

export async function testTools(): Promise<ConversionTools> {
  const [llamaCpp, python] = await Promise.all([testLlamaCpp(), testPythonTools()]);
  return { llamaCpp, python, variables: childVariables() };
}

export function optionsFor<Step extends ConversionStep>(
  step: Step,
  { root, merged }: { readonly root: string; readonly merged: string },
  tools: ConversionTools,
  sources: Readonly<Record<string, string>> = {},
): ConvertOptions<Step> {
  return {
    step,
    merged,
    mergedDigest: 'a'.repeat(64),
    adapters: { calculator: CALCULATOR },
    base: BASE,
    sources,
    directory: join(root, 'conversions'),
    modelName: MODEL_NAME,
    tools,
    threads: 2,
  };
}
