import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeldlineError } from '../../engine/errors.ts';
import type { LlamaModelOptions } from '../../tools/llama-cpp/llama-model.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import { type SideProcess, startSideProcess } from '../../tools/side-process.ts';
import type {
  Answer,
  AnswerRequest,
  DistributionRequest,
  Distributions,
  Runner,
} from '../runner.ts';
import { startLlamaServerRunner } from './llama-server-runner.ts';
import { readDistributions } from './read-distributions.ts';
import { toRunnerFailure } from './runner-failure.ts';

/** Reading a large model from a slow disk takes minutes; without a byte of news it hangs. */
const START_TIMEOUT_MS = 30 * 60_000;
/** One batch of 512 tokens through a large model on a few processors. */
const STALL_TIMEOUT_MS = 10 * 60_000;

export interface LlamaCppRunnerOptions {
  /** GGUF file; the first part of one that was split. */
  readonly model: string;
  /** LoRA adapter as GGUF. */
  readonly adapter?: string | undefined;
  readonly llamaCpp: LlamaCpp;
  /** The child's environment; see `childVariables`. */
  readonly variables: Readonly<Record<string, string>>;
  /** Half of the processors by default. Their number changes no answer. */
  readonly threads?: number | undefined;
  readonly stallTimeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly logFile?: string | undefined;
}

/**
 * Runs a GGUF model with llama.cpp, in a process of its own.
 *
 * With the libraries of the installed release it calls them (tools/llama-cpp/run-model.ts): each
 * text is evaluated alone, from its start, in batches of 512, so answers depend on nothing but the
 * model, the prompt and the processor. A llama.cpp of the user's own is asked through its
 * `llama-server`, which has no distributions.
 *
 * @throws WeldlineError `evaluate.runner-failed` with what llama.cpp printed; `tool.not-found`
 */
export async function startLlamaCppRunner(options: LlamaCppRunnerOptions): Promise<Runner> {
  const { llamaCpp, model, adapter, threads } = options;
  const { modules, libraries, programs } = llamaCpp;
  if (modules === undefined || libraries === undefined) {
    const program = programs['llama-server'];
    if (program !== undefined) return await startLlamaServerRunner(program, options);
    throw new WeldlineError(
      'tool.not-found',
      `The llama.cpp in ${llamaCpp.directory} has no llama-server, which runs models. Build it, ` +
        'or unset WELDLINE_LLAMA_CPP and run `weldline tools install gguf`.',
    );
  }
  const settings: LlamaModelOptions = {
    modules,
    libraries,
    model,
    ...(adapter === undefined ? {} : { adapter }),
    ...(threads === undefined ? {} : { threads }),
  };
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const program = new URL(`../../tools/llama-cpp/run-model.${extension}`, import.meta.url);
  const name = `llama.cpp with ${basename(model)}`;
  const child = await asRunnerFailure(options.signal, () =>
    startSideProcess({
      file: process.execPath,
      args: [fileURLToPath(program), JSON.stringify(settings)],
      env: options.variables,
      signal: options.signal,
      logFile: options.logFile,
      startTimeoutMs: options.stallTimeoutMs ?? START_TIMEOUT_MS,
      stallTimeoutMs: options.stallTimeoutMs ?? STALL_TIMEOUT_MS,
      name,
    }),
  );
  return new LlamaCppRunner(`llama.cpp ${llamaCpp.version}`, child);
}

class LlamaCppRunner implements Runner {
  readonly identity: string;
  readonly contextTokens: number;
  readonly #child: SideProcess;

  constructor(identity: string, child: SideProcess) {
    this.identity = identity;
    this.contextTokens = Number(child.hello['contextTokens']);
    this.#child = child;
  }

  async *answer(requests: readonly AnswerRequest[], signal: AbortSignal): AsyncIterable<Answer> {
    for (const { index, ...request } of requests) {
      const reply = await this.#ask({ do: 'answer', what: `prompt ${index}`, ...request }, signal);
      yield { index, text: String(reply['text']), promptTokens: Number(reply['promptTokens']) };
    }
  }

  async *distributions(
    requests: readonly DistributionRequest[],
    signal: AbortSignal,
  ): AsyncIterable<Distributions> {
    const directory = await mkdtemp(join(tmpdir(), 'weldline-logits-'));
    const file = join(directory, 'logits.f32');
    try {
      for (const { index, ...request } of requests) {
        const message = { do: 'distributions', what: `text ${index}`, ...request, file };
        const { vocabulary } = this.#child.hello;
        const reply = { vocabulary, ...(await this.#ask(message, signal)) };
        yield { index, ...(await readDistributions(this.identity, file, reply)) };
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  /** The reply that has more than the count of evaluated tokens. */
  async #ask(
    message: Readonly<Record<string, unknown>>,
    signal: AbortSignal,
  ): Promise<Record<string, unknown>> {
    return await asRunnerFailure(signal, async () => {
      let found: Record<string, unknown> = {};
      for await (const reply of this.#child.request(message, signal)) {
        if (!('evaluated' in reply)) found = reply;
      }
      return found;
    });
  }

  async close(): Promise<void> {
    await this.#child.close();
  }
}

async function asRunnerFailure<T>(
  signal: AbortSignal | undefined,
  action: () => Promise<T>,
): Promise<T> {
  try {
    return await action();
  } catch (error) {
    signal?.throwIfAborted();
    throw toRunnerFailure(error);
  }
}
