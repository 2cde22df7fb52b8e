import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { WeldlineError } from '../../engine/errors.ts';
import { type LeashedProcess, startLeashed } from '../../tools/leashed-process.ts';
import type { Answer, AnswerRequest, Runner } from '../runner.ts';
import type { LlamaCppRunnerOptions } from './llama-cpp-runner.ts';

const START_TIMEOUT_MS = 30 * 60_000;
const POLL_MS = 100;
const ANSWER_TIMEOUT_MS = 30 * 60_000;
/** Of a prompt and its answer together; memory is reserved for all of it. */
const CONTEXT_TOKENS = 8192;
const LAST_LINES_MAX = 15;
const LINE_LENGTH_MAX = 500;

/**
 * Runs a GGUF model with the `llama-server` of a llama.cpp of the user's own: on a port of the
 * loopback interface that the system picks, on a leash. It tells no probabilities of a whole
 * vocabulary for every position, so there are no distributions.
 *
 * @throws WeldlineError `evaluate.runner-failed` with the server's last lines
 */
export async function startLlamaServerRunner(
  program: string,
  options: LlamaCppRunnerOptions,
): Promise<Runner> {
  const { model, adapter, threads, signal, llamaCpp } = options;
  signal?.throwIfAborted();
  const server = new LlamaServer(basename(model));
  await server.start({
    file: program,
    args: [
      ...['--model', model, '--host', '127.0.0.1', '--port', '0', '--parallel', '1'],
      ...['--ctx-size', String(CONTEXT_TOKENS), '--offline', '--no-webui', '--no-warmup'],
      ...(adapter === undefined ? [] : ['--lora', adapter]),
      ...(threads === undefined ? [] : ['--threads', String(threads)]),
    ],
    env: options.variables,
    logFile: options.logFile,
    signal,
  });
  return {
    identity: `llama-server ${llamaCpp.version}`,
    answer: (requests, each) => answerAll(server, requests, each),
    close: () => server.close(),
  };
}

async function* answerAll(
  server: LlamaServer,
  requests: readonly AnswerRequest[],
  signal: AbortSignal,
): AsyncIterable<Answer> {
  for (const { index, prompt, addSpecialTokens, newTokensMax } of requests) {
    const what = `prompt ${index}`;
    const { tokens } = await server.post(
      '/tokenize',
      what,
      { content: prompt, add_special: addSpecialTokens, parse_special: true },
      signal,
    );
    const promptTokens = tokens as readonly number[];
    // The whole prompt anew each time, so that answers do not depend on what was asked before.
    const settings = { samplers: ['top_k'], top_k: 1, temperature: 0, cache_prompt: false };
    const { content } = await server.post(
      '/completion',
      what,
      { prompt: promptTokens, n_predict: newTokensMax, ...settings },
      signal,
    );
    yield { index, text: String(content), promptTokens: promptTokens.length };
  }
}

interface ServerOptions {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string | undefined;
  readonly signal: AbortSignal | undefined;
}

class LlamaServer {
  readonly #name: string;
  readonly #lastLines: string[] = [];
  #process: LeashedProcess | undefined;
  #url: string | undefined;
  /** Its exit code or the signal that ended it, once it has ended. */
  #ending: string | undefined;

  constructor(model: string) {
    this.#name = `llama-server with ${model}`;
  }

  async start({ signal, ...program }: ServerOptions): Promise<void> {
    this.#process = await startLeashed({
      ...program,
      stdin: 'ignore',
      lineLengthMax: LINE_LENGTH_MAX,
      onLine: (line) => {
        this.#lastLines.push(line);
        if (this.#lastLines.length > LAST_LINES_MAX) this.#lastLines.shift();
        this.#url ??= /listening on (http:\/\/127\.0\.0\.1:\d+)/.exec(line)?.[1];
      },
    });
    this.#process.ended.then(
      ({ exitCode, signal: killedBy }) => {
        this.#ending = killedBy ?? `exit code ${exitCode}`;
      },
      () => {
        this.#ending = 'no exit code';
      },
    );
    const deadline = performance.now() + START_TIMEOUT_MS;
    try {
      while (!(await this.#isReady())) {
        if (this.#ending !== undefined) {
          throw this.#failure(`ended before it was ready (${this.#ending})`);
        }
        if (performance.now() > deadline) throw this.#failure('was not ready after half an hour');
        await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal });
      }
    } catch (error) {
      await this.close();
      signal?.throwIfAborted();
      throw error;
    }
    // An abort after the start ends the server, as it does with every other program.
    signal?.addEventListener('abort', () => void this.close(), { once: true });
  }

  async #isReady(): Promise<boolean> {
    if (this.#url === undefined) return false;
    const health = await fetch(`${this.#url}/health`).catch(() => undefined);
    await health?.body?.cancel();
    return health?.ok === true;
  }

  async post(
    path: string,
    what: string,
    body: Readonly<Record<string, unknown>>,
    signal: AbortSignal,
  ): Promise<Record<string, unknown>> {
    try {
      const response = await fetch(`${this.#url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]),
      });
      if (response.ok) return (await response.json()) as Record<string, unknown>;
      const text = (await response.text()).slice(0, LINE_LENGTH_MAX);
      throw this.#failure(`answered ${what} with status ${response.status}: ${text}`);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof WeldlineError) throw error;
      throw this.#failure(
        this.#ending === undefined ? `did not answer ${what}` : `ended (${this.#ending})`,
        error,
      );
    }
  }

  #failure(how: string, cause?: unknown): WeldlineError {
    const message = [`${this.#name} ${how}.`, ...this.#lastLines.map((line) => `  ${line}`)];
    return new WeldlineError('evaluate.runner-failed', message.join('\n'), { cause });
  }

  async close(): Promise<void> {
    await this.#process?.stop();
  }
}
