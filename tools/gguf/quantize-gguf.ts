import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GgufType } from '../../config/gguf-types.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { LlamaCpp } from '../llama-cpp.ts';
import { run } from '../run.ts';
import type { QuantizeRequest } from './quantize-process.ts';

/** llama.cpp prints a line for each tensor; the largest takes a minute on a slow machine. */
const STALL_TIMEOUT_MS = 30 * 60_000;
/** `[  12/ 272] blk.0.attn_q.weight - …` */
const TENSOR_LINE = /^\[\s*(\d+)\/\s*(\d+)\]/;

export interface QuantizeOptions {
  /** A GGUF file, or the first of its parts. */
  readonly source: string;
  /** Its directory exists. */
  readonly target: string;
  readonly type: GgufType;
  /** Importance matrix in GGUF. */
  readonly imatrix?: string | undefined;
  readonly llamaCpp: LlamaCpp;
  readonly variables: Readonly<Record<string, string>>;
  readonly threads?: number | undefined;
  /** How long llama.cpp may print nothing; half an hour where it is not given. */
  readonly stallTimeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onFraction?: ((fraction: number) => void) | undefined;
  readonly logFile?: string | undefined;
}

/**
 * Quantizes a GGUF file by llama.cpp: by its library, with the same bytes as its program, or by the
 * program of a llama.cpp of the user's own.
 *
 * @throws WeldlineError `tool.*`, `disk.full`; what was written so far stays
 */
export async function quantizeGguf(options: QuantizeOptions): Promise<void> {
  await run({
    ...command(options),
    env: options.variables,
    signal: options.signal,
    stallTimeoutMs: options.stallTimeoutMs ?? STALL_TIMEOUT_MS,
    logFile: options.logFile,
    onLine: (line) => {
      const [, done, total] = TENSOR_LINE.exec(line) ?? [];
      if (total !== undefined) options.onFraction?.(Number(done) / Number(total));
    },
  });
}

function command(options: QuantizeOptions): { file: string; args: string[]; cwd?: string } {
  const { source, target, type, imatrix, llamaCpp, threads } = options;
  const { libraries, modules } = llamaCpp;
  if (libraries !== undefined && modules !== undefined) {
    const ftype = type.ftype;
    const request = { modules, libraries, source, target, ftype, imatrix, threads };
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const child = fileURLToPath(new URL(`./quantize-process.${extension}`, import.meta.url));
    const text = JSON.stringify(request satisfies QuantizeRequest);
    return { file: process.execPath, args: [child, text] };
  }
  const program = llamaCpp.programs['llama-quantize'];
  if (program === undefined) {
    throw new WeldlineError(
      'tool.not-found',
      `The llama.cpp in ${llamaCpp.directory} has no llama-quantize. Build it there, or unset ` +
        'WELDLINE_LLAMA_CPP and run weldline tools install gguf.',
    );
  }
  const threadArgument = threads === undefined ? [] : [String(threads)];
  const last = [source, target, type.name, ...threadArgument];
  if (imatrix === undefined) return { file: program, args: last };
  // The file's name goes into the result: of all paths only its last component says anything.
  const args = ['--imatrix', basename(imatrix), ...last];
  return { file: program, args, cwd: dirname(imatrix) };
}
