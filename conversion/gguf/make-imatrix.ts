import { basename, dirname, join } from 'node:path';
import { digestOf } from '../../engine/canonical-json.ts';
import { digestFile } from '../../engine/durable-files.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { buildLlamaPrograms } from '../../tools/build-llama-programs.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import { run } from '../../tools/run.ts';
import { type ConversionFindings, makeConversion } from '../conversion-store.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';
import { readGguf } from './gguf-model.ts';
import { requireLlamaCpp } from './run-converter.ts';

const PROGRAM = 'llama-imatrix';

const IMATRIX_FILE = 'imatrix.gguf';
/** llama-imatrix's own default. */
const CONTEXT_TOKENS = 512;
const TOKENS_MIN = 2 * CONTEXT_TOKENS;
const TOO_SHORT = /you need at least \d+ tokens/;
/** Text of fewer bytes may be too short: few tokens are longer than this many bytes each. */
const TOKEN_BYTES_MAX = 8;
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
 * @throws WeldlineError `convert.bad-calibration` for too little text, `source.not-found` for none;
 *   `tool.*`, `disk.*`
 */
export async function makeImatrix(options: ImatrixOptions): Promise<string> {
  const { source, calibration, tools, signal } = options;
  const llamaCpp = requireLlamaCpp(tools);
  const text = await digestFile(calibration, { signal });
  const settings = {
    of: source.manifest.id,
    calibration: text.sha256,
    // Its name goes into the matrix.
    name: basename(calibration),
    contextTokens: CONTEXT_TOKENS,
  };
  const versions = { 'llama.cpp': llamaCpp.version };
  const key = digestOf({ source: source.manifest.files, settings, tools: versions });
  const facts = { id: 'imatrix', kind: 'gguf' as const, key, tools: versions, settings };
  const make = async (partial: string): Promise<ConversionFindings> => {
    options.onProgress?.({ stage: 'importance matrix' });
    await compute(join(partial, IMATRIX_FILE), llamaCpp, text.size, options);
    return { checks: [], warnings: [] };
  };
  const made = await makeConversion(options.directory, facts, make, signal);
  return join(made.directory, IMATRIX_FILE);
}

async function compute(
  target: string,
  llamaCpp: LlamaCpp,
  textBytes: number,
  options: ImatrixOptions,
): Promise<void> {
  const { source, calibration, tools, threads, signal } = options;
  const { variables } = tools;
  const { programs } = await buildLlamaPrograms(llamaCpp, [PROGRAM], { variables, signal });
  const { files } = await readGguf(source.directory);
  const running = run({
    file: programs[PROGRAM] ?? PROGRAM,
    args: [
      ...['--model', files[0] ?? '', '--file', basename(calibration), '--output-file', target],
      ...['--ctx-size', String(CONTEXT_TOKENS), '--no-ppl', '--gpu-layers', '0'],
      ...(threads === undefined ? [] : ['--threads', String(threads)]),
    ],
    cwd: dirname(calibration),
    env: variables,
    signal,
    stallTimeoutMs: tools.stallTimeoutMs ?? STALL_TIMEOUT_MS,
    logFile: options.logFile,
  });
  await running.catch((error: Error) => {
    // It ends without waiting for the thread that prints why, so that now and then nothing tells.
    const hasFailed = error instanceof WeldlineError && error.code === 'tool.failed';
    const mayBeShort = hasFailed && textBytes < TOKENS_MIN * TOKEN_BYTES_MAX;
    if (!mayBeShort && !TOO_SHORT.test(error.message)) throw error;
    throw new WeldlineError(
      'convert.bad-calibration',
      `${calibration} is too short for an importance matrix: llama-imatrix takes at least ` +
        `${TOKENS_MIN} tokens, and some hundred thousand are usual.`,
      { cause: error },
    );
  });
}
