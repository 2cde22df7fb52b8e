import { basename, dirname, join } from 'node:path';
import { digestOf } from '../../engine/canonical-json.ts';
import { digestFile } from '../../engine/durable-files.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import { run } from '../../tools/run.ts';
import { makeConversion } from '../conversion-store.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';
import { readGguf } from './gguf-model.ts';

const IMATRIX_FILE = 'imatrix.gguf';
/** llama-imatrix's own default. */
const CONTEXT_TOKENS = 512;
const STALL_TIMEOUT_MS = 60 * 60_000;

export interface ImatrixOptions
  extends Pick<
    ConvertOptions,
    'directory' | 'tools' | 'threads' | 'signal' | 'onProgress' | 'logFile'
  > {
  /** The model that is quantized. */
  readonly source: Conversion;
  /** Path of text. */
  readonly calibration: string;
}

/**
 * Makes an importance matrix of text by llama-imatrix; one that was made of the same text and model
 * is used again.
 *
 * @returns the path of the matrix
 * @throws WeldlineError `tool.*`, `disk.*`; `source.not-found` for the text
 */
export async function makeImatrix(options: ImatrixOptions): Promise<string> {
  const { source, calibration, tools, signal } = options;
  const { llamaCpp } = tools;
  const program = imatrixProgram(llamaCpp);
  const text = await digestFile(calibration, { signal });
  const settings = {
    of: source.manifest.id,
    calibration: text.sha256,
    // Its name goes into the matrix.
    name: basename(calibration),
    contextTokens: CONTEXT_TOKENS,
  };
  const versions = { 'llama.cpp': llamaCpp?.version ?? '' };
  const key = digestOf({ source: source.manifest.files, settings, tools: versions });
  const facts = { id: 'imatrix', kind: 'gguf' as const, key, tools: versions, settings };
  const made = await makeConversion(
    options.directory,
    facts,
    async (partial) => {
      options.onProgress?.({ stage: 'importance matrix' });
      const { files } = await readGguf(source.directory);
      await run({
        file: program,
        args: [
          ...['--model', files[0] ?? '', '--file', basename(calibration)],
          ...['--output-file', join(partial, IMATRIX_FILE), '--ctx-size', String(CONTEXT_TOKENS)],
          ...['--no-ppl', '--gpu-layers', '0'],
          ...(options.threads === undefined ? [] : ['--threads', String(options.threads)]),
        ],
        cwd: dirname(calibration),
        env: tools.variables,
        signal,
        stallTimeoutMs: STALL_TIMEOUT_MS,
        logFile: options.logFile,
      });
      return { checks: [], warnings: [] };
    },
    signal,
  );
  return join(made.directory, IMATRIX_FILE);
}

/** @throws WeldlineError `tool.not-found` */
export function imatrixProgram(llamaCpp: LlamaCpp | undefined): string {
  const program = llamaCpp?.programs['llama-imatrix'];
  if (program !== undefined) return program;
  throw new WeldlineError(
    'tool.not-found',
    'An importance matrix is made by llama-imatrix, which is not there. Set WELDLINE_LLAMA_CPP to a ' +
      'llama.cpp that has it, or give a finished matrix in the recipe (imatrix: {file: PATH}).',
  );
}
