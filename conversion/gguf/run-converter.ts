import { fileURLToPath } from 'node:url';
import { WeldlineError } from '../../engine/errors.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import type { PythonTools } from '../../tools/python-tools.ts';
import { run } from '../../tools/run.ts';
import type { ConversionTools } from '../convert-options.ts';

export const HF_CONVERTER = 'convert_hf_to_gguf.py';
export const LORA_CONVERTER = 'convert_lora_to_gguf.py';

/** The largest tensor of a model is written in seconds; importing torch from a cold disk is slower. */
const STALL_TIMEOUT_MS = 30 * 60_000;
/** A progress bar of tqdm: `Writing:  12%|█▏        | …` */
const PROGRESS_LINE = /^Writing:\s+(\d+)%\|/;

const PYTHON_VARIABLES = {
  HF_HUB_OFFLINE: '1',
  TRANSFORMERS_OFFLINE: '1',
  PYTHONUNBUFFERED: '1',
  PYTHONUTF8: '1',
} as const;

export interface ConverterOptions {
  readonly script: typeof HF_CONVERTER | typeof LORA_CONVERTER;
  readonly args: readonly string[];
  /** Only say what the file would hold, as a JSON object. */
  readonly inspect?: boolean;
  readonly tools: ConversionTools;
  readonly signal?: AbortSignal | undefined;
  readonly onFraction?: ((fraction: number) => void) | undefined;
  readonly logFile?: string | undefined;
}

/**
 * Runs a converter of llama.cpp, without a network and without executing code of the model.
 *
 * @returns the last line of its standard output
 * @throws WeldlineError `tool.*`, `disk.full`
 */
export async function runConverter(options: ConverterOptions): Promise<string> {
  const { llamaCpp, python } = converterTools(options.tools);
  const script = fileURLToPath(new URL('../../tools/python/run_converter.py', import.meta.url));
  const mode = options.inspect === true ? ['--inspect'] : [];
  const { NO_LOCAL_GGUF: _, PYTHONPATH: __, ...variables } = options.tools.variables;
  const output = await run({
    file: python.python,
    args: [script, ...mode, llamaCpp.converter, options.script, ...options.args],
    env: { ...variables, ...PYTHON_VARIABLES },
    signal: options.signal,
    stallTimeoutMs: options.tools.stallTimeoutMs ?? STALL_TIMEOUT_MS,
    logFile: options.logFile,
    onLine: (line) => {
      const percent = PROGRESS_LINE.exec(line)?.[1];
      if (percent !== undefined) options.onFraction?.(Number(percent) / 100);
    },
  });
  return output.trimEnd().split('\n').at(-1) ?? '';
}

/** @throws WeldlineError `tool.not-found` where one of the two is missing */
export function converterTools(tools: ConversionTools): {
  readonly llamaCpp: LlamaCpp;
  readonly python: PythonTools;
} {
  const llamaCpp = requireLlamaCpp(tools);
  if (tools.python !== undefined) return { llamaCpp, python: tools.python };
  throw missing('a Python with torch and transformers');
}

/** @throws WeldlineError `tool.not-found` */
export function requireLlamaCpp({ llamaCpp }: ConversionTools): LlamaCpp {
  if (llamaCpp !== undefined) return llamaCpp;
  throw missing('llama.cpp');
}

function missing(what: string): WeldlineError {
  return new WeldlineError(
    'tool.not-found',
    `Conversion to GGUF needs ${what}. Run weldline tools install gguf; weldline doctor says what ` +
      'is there.',
  );
}

/** What decides the bytes that a converter makes. */
export function converterVersions(tools: ConversionTools): Readonly<Record<string, string>> {
  const { llamaCpp, python } = converterTools(tools);
  const { torch = 'unknown', transformers = 'unknown' } = python.versions;
  return { 'llama.cpp': llamaCpp.version, torch, transformers };
}
