/**
 * Records what llama.cpp's own programs make of the example by hand, into `fixtures/`: run
 * `node test/conversion/gguf/make-golden.ts` for another release of llama.cpp. Takes a C++ compiler.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, rename } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { GGUF_TYPE_NAMES, ggufType } from '../../../config/gguf-types.ts';
import { buildLlamaPrograms } from '../../../tools/build-llama-programs.ts';
import { testLlamaCpp, testPythonTools } from '../../tools/test-tools.ts';
import { CALIBRATION, type Golden, IMATRIX, MODEL_NAME, mergeExample } from './tiny-model.ts';

/** What llama-gguf-split takes is whole megabytes. */
const SPLIT_SIZE = '1M';

const names = ['llama-quantize', 'llama-imatrix', 'llama-gguf-split'];
const llamaCpp = await buildLlamaPrograms(await testLlamaCpp(), names);
const { python } = await testPythonTools();
const { root, merged } = await mergeExample();
const model = join(root, MODEL_NAME.replace(' ', '-'));
await rename(merged, model);

const sha256 = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex');
const program = (name: string, args: readonly string[], cwd = root): void => {
  execFileSync(llamaCpp.programs[name] ?? name, args, { cwd, stdio: 'ignore' });
};

function convert(type: string): string {
  const target = join(root, `${type}.gguf`);
  const script = join(llamaCpp.converter, 'convert_hf_to_gguf.py');
  const options = [
    '--outfile',
    target,
    '--outtype',
    type.toLowerCase(),
    '--model-name',
    MODEL_NAME,
  ];
  execFileSync(python, [script, model, ...options], { stdio: 'ignore' });
  return target;
}

function quantize(source: string, type: string, imatrix: readonly string[]): string | undefined {
  const target = join(root, `${type}.gguf`);
  try {
    program('llama-quantize', [...imatrix, source, target, type], dirname(IMATRIX));
    return sha256(target);
  } catch {
    return undefined;
  } finally {
    rmSync(target, { force: true });
  }
}

const source = convert('F16');
const converted = { F16: sha256(source), BF16: sha256(convert('BF16')) };
const made = join(root, 'imatrix.gguf');
const imatrixOptions = ['--file', basename(CALIBRATION), '--ctx-size', '512', '--no-ppl'];
program(
  'llama-imatrix',
  ['--model', source, ...imatrixOptions, '--output-file', made],
  dirname(CALIBRATION),
);
copyFileSync(made, IMATRIX);

const lossy = GGUF_TYPE_NAMES.filter((name) => ggufType(name).loss !== 'lossless');
const record = (imatrix: readonly string[]): Record<string, string> =>
  Object.fromEntries(
    lossy.flatMap((type) => {
      const digest = quantize(source, type, imatrix);
      return digest === undefined ? [] : [[type, digest]];
    }),
  );
const quantized = record([]);
const withImatrix = record(['--imatrix', basename(IMATRIX)]);
program('llama-gguf-split', ['--split-max-size', SPLIT_SIZE, source, join(root, 'part')]);
const parts = (await readdir(root)).filter((name) => name.startsWith('part-')).sort();
const golden: Golden = {
  llamaCpp: llamaCpp.version,
  converted,
  quantized,
  withImatrix,
  needImatrix: lossy.filter((type) => quantized[type] === undefined),
  split: parts.map((name) => sha256(join(root, name))),
};
writeFileSync(join(dirname(IMATRIX), 'golden.json'), `${JSON.stringify(golden, null, 2)}\n`);
rmSync(root, { recursive: true });
