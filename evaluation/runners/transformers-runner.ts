import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PythonTools } from '../../tools/python-tools.ts';
import { type SideProcess, startSideProcess } from '../../tools/side-process.ts';
import type {
  Answer,
  AnswerRequest,
  DistributionRequest,
  Distributions,
  Runner,
} from '../runner.ts';
import { readDistributions } from './read-distributions.ts';
import { toRunnerFailure } from './runner-failure.ts';

/** Loading is silent at times, and reads a hundred gigabytes from slow disks. */
const START_TIMEOUT_MS = 60 * 60_000;
/** One token of the largest models on a CPU, or the first of a long prompt. */
const STALL_TIMEOUT_MS = 15 * 60_000;
/** Prompts that are sent at once: enough to find some of one length, and few to lose. */
const REQUESTS_MAX = 512;

export interface TransformersRunnerOptions {
  /** Directory of a checkpoint. */
  readonly model: string;
  /** Directory of a PEFT adapter, applied to it without merging. */
  readonly adapter?: string | undefined;
  /** Directory of the tokenizer, if it is not the model's: an adapter may bring tokens along. */
  readonly tokenizer?: string | undefined;
  readonly python: PythonTools;
  /** The process's environment. */
  readonly variables: Readonly<Record<string, string>>;
  /** Threads of the arithmetic; torch's own choice where absent. */
  readonly threads?: number | undefined;
  readonly stallTimeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly logFile?: string | undefined;
}

/** `Runner.identity` of the runner that these tools make. */
export function transformersIdentity({ versions, gpu }: PythonTools): string {
  const packages = ['transformers', 'torch', 'peft'];
  return [
    ...packages.map((name) => `${name} ${versions[name] ?? 'unknown'}`),
    ...(gpu === true ? ['bfloat16 on a GPU'] : []),
  ].join(', ');
}

/**
 * Loads a checkpoint with transformers in a process of its own (tools/python/transformers_runner.py):
 * float32 arithmetic on a CPU, bfloat16 on a GPU. Without network, and without code of the model's.
 *
 * @throws WeldlineError `evaluate.runner-failed` if the model cannot be loaded; `tool.not-found`,
 *   `tool.stalled`, `tool.killed`
 */
export async function startTransformersRunner(options: TransformersRunnerOptions): Promise<Runner> {
  const { model, adapter, tokenizer, python, variables, threads, signal, logFile } = options;
  const script = fileURLToPath(
    new URL('../../tools/python/transformers_runner.py', import.meta.url),
  );
  try {
    const subject = adapter === undefined ? model : `${model} with the adapter ${adapter}`;
    const process = await startSideProcess({
      file: python.python,
      args: [
        ...['-B', script, '--model', model],
        // Said and not found out, so that no answer is kept as one of another arithmetic.
        ...['--device', python.gpu === true ? 'cuda' : 'cpu'],
        ...(adapter === undefined ? [] : ['--adapter', adapter]),
        ...(tokenizer === undefined ? [] : ['--tokenizer', tokenizer]),
        ...(threads === undefined ? [] : ['--threads', String(threads)]),
      ],
      env: variables,
      signal,
      logFile,
      startTimeoutMs: options.stallTimeoutMs ?? START_TIMEOUT_MS,
      stallTimeoutMs: options.stallTimeoutMs ?? STALL_TIMEOUT_MS,
      name: `the transformers runner of ${subject}`,
    });
    return new TransformersRunner(transformersIdentity(python), process);
  } catch (error) {
    throw toRunnerFailure(error);
  }
}

class TransformersRunner implements Runner {
  readonly identity: string;
  readonly contextTokens?: number;
  readonly #process: SideProcess;

  constructor(identity: string, process: SideProcess) {
    this.identity = identity;
    const { context } = process.hello;
    if (typeof context === 'number') this.contextTokens = context;
    this.#process = process;
  }

  async *answer(
    requests: readonly AnswerRequest[],
    signal: AbortSignal,
  ): AsyncGenerator<Answer, void> {
    for (let start = 0; start < requests.length; start += REQUESTS_MAX) {
      const message = { op: 'answer', requests: requests.slice(start, start + REQUESTS_MAX) };
      for await (const reply of this.#ask(message, signal)) {
        const { index, text, promptTokens } = reply;
        // The others are signs of life.
        if (typeof text !== 'string') continue;
        yield { index: Number(index), text, promptTokens: Number(promptTokens) };
      }
    }
  }

  /** One text after the other: what is asked for at once is on the disk at once. */
  async *distributions(
    requests: readonly DistributionRequest[],
    signal: AbortSignal,
  ): AsyncGenerator<Distributions, void> {
    const directory = await mkdtemp(join(tmpdir(), 'weldline-logits-'));
    const file = join(directory, 'logits.f32');
    try {
      for (const { index, text, addSpecialTokens, positionsMax } of requests) {
        const message = { op: 'distributions', text, addSpecialTokens, positionsMax, file };
        for await (const reply of this.#ask(message, signal)) {
          yield { index, ...(await readDistributions(this.identity, file, reply)) };
        }
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await this.#process.close();
  }

  async *#ask(
    message: Readonly<Record<string, unknown>>,
    signal: AbortSignal,
  ): AsyncGenerator<Record<string, unknown>> {
    try {
      yield* this.#process.request(message, signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw toRunnerFailure(error);
    }
  }
}
