import { fileURLToPath } from 'node:url';
import type { LlamaCpp } from '../llama-cpp.ts';
import { run } from '../run.ts';
import type { TryRequest, TryResult } from './try-gguf-process.ts';

/** A large model is read from the disk for it, and prints nothing meanwhile. */
const TIMEOUT_MS = 60 * 60_000;

export interface TryOptions extends Omit<TryRequest, 'modules'> {
  readonly llamaCpp: LlamaCpp;
  readonly variables: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly logFile?: string | undefined;
}

/**
 * Loads a GGUF model with llama.cpp and lets it go on with a text, greedily, on the processor.
 *
 * @returns what it wrote; undefined where this llama.cpp has nothing that does it
 * @throws WeldlineError `tool.*`, when it cannot be loaded, too
 */
export async function tryGguf(options: TryOptions): Promise<TryResult | undefined> {
  const { llamaCpp, variables, signal, logFile, ...request } = options;
  const common = { env: variables, signal, timeoutMs: TIMEOUT_MS, logFile };
  if (llamaCpp.modules !== undefined) {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const child = fileURLToPath(new URL(`./try-gguf-process.${extension}`, import.meta.url));
    const argument = JSON.stringify({ ...request, modules: llamaCpp.modules } satisfies TryRequest);
    const output = await run({ ...common, file: process.execPath, args: [child, argument] });
    return JSON.parse(output.trimEnd().split('\n').at(-1) ?? '') as TryResult;
  }
  const program = llamaCpp.programs['llama-completion'];
  if (program === undefined) return undefined;
  const text = await run({
    ...common,
    file: program,
    args: [
      ...['--model', request.model, '--prompt', request.text, '--predict', String(request.count)],
      ...(request.adapter === undefined ? [] : ['--lora', request.adapter]),
      ...['--temp', '0', '--no-conversation', '--no-display-prompt', '--gpu-layers', '0'],
    ],
  });
  return { text: text.trimEnd(), tokens: request.count };
}
