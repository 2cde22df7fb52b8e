import { WeldlineError } from '../engine/errors.ts';
import { afterMs, type LeashedProcess, startLeashed } from './leashed-process.ts';
import {
  advice,
  failureCode,
  forPeople,
  LastLines,
  programFailure,
  type Stopped,
} from './program-failure.ts';
import { type Reply, ReplyQueue } from './reply-queue.ts';

/** A reply may hold the probabilities of a vocabulary, as text. */
const REPLY_LENGTH_MAX = 64 << 20;
/** What the program gets to end by itself when its input ends. */
const CLOSE_TIMEOUT_MS = 5_000;
const QUOTE_LENGTH_MAX = 200;
/** The end of a traceback. */
const ERROR_LINES_MAX = 15;

export interface SideProcessOptions {
  /** A path, or a name to look up on the PATH of `env`. */
  file: string;
  args: readonly string[];
  /** The whole environment; see `childVariables`. */
  env: Readonly<Record<string, string>>;
  cwd?: string | undefined;
  /** Ends the process whenever it aborts. */
  signal?: AbortSignal | undefined;
  /** Receives what it prints on both streams, appended; created with its directory. */
  logFile?: string | undefined;
  /** How long it may take to say that it is ready. */
  startTimeoutMs?: number | undefined;
  /** How long it may print nothing, on either stream, while a request is under way. */
  stallTimeoutMs?: number | undefined;
  /** What errors call it: `the transformers runner`. */
  name: string;
}

/**
 * A program that stays and answers requests over its standard streams, a JSON object on each line.
 * All else that it has to say goes to standard error, which ends up in the log and in errors.
 */
export interface SideProcess {
  /** The first line it printed: `{"ready": true, …}`. */
  readonly hello: Readonly<Record<string, unknown>>;
  /**
   * Sends `{"id": n, ...message}` and yields every `{"id": n, …}` up to `{"id": n, "done": true}`.
   * Requests are sent as they come and answered in that order, so the program does one after the
   * other and may be given the next before it has finished. Of one that is left early the rest is
   * thrown away.
   *
   * @throws WeldlineError `tool.failed` with the text of `{"id": n, "error": text}`, or `disk.full`
   *   or `tool.killed` where that speaks of space or memory: the process lives on; or why it ended,
   *   with its last lines: `tool.failed`, `tool.stalled`, `tool.killed` or `disk.full`; the reason
   *   of the signal that aborted
   */
  request(
    message: Readonly<Record<string, unknown>>,
    signal?: AbortSignal,
  ): AsyncIterable<Record<string, unknown>>;
  /** Ends its input and waits, 5 s at most, then ends it and all that it started. */
  close(): Promise<void>;
}

/**
 * Starts a side process and waits until it is ready. It is on a leash, like all programs.
 *
 * @throws WeldlineError `tool.not-found`, `tool.failed`, `tool.stalled`, `tool.killed`, `disk.full`
 */
export async function startSideProcess(options: SideProcessOptions): Promise<SideProcess> {
  options.signal?.throwIfAborted();
  const conversation = new Conversation(options);
  const hello = await conversation.start();
  return {
    hello,
    request: (message, signal) => conversation.request(message, signal),
    close: () => conversation.close(),
  };
}

class Conversation {
  readonly #options: SideProcessOptions;
  readonly #lastLines = new LastLines();
  readonly #hello = new ReplyQueue();
  /** Requests that were sent and have not been answered to their end, by their id. */
  readonly #requests = new Map<number, ReplyQueue>();
  #process: LeashedProcess | undefined;
  #isReady = false;
  #isDelivering = false;
  #nextId = 1;
  #stallTimer: NodeJS.Timeout | undefined;
  /** Why it was killed, if it was. */
  #stopped: Stopped | undefined;
  /** What requests fail with, once it has ended or will. */
  #failure: unknown;
  #closing: Promise<void> | undefined;

  constructor(options: SideProcessOptions) {
    this.#options = options;
  }

  async start(): Promise<Reply> {
    const { name, file, signal, startTimeoutMs, stallTimeoutMs } = this.#options;
    const program = await startLeashed({
      ...this.#options,
      stdin: 'pipe',
      lineLengthMax: REPLY_LENGTH_MAX,
      onLine: (line, from) => {
        if (from === 'stdout') return this.#receive(line);
        this.#lastLines.add(line);
      },
      onOutput: () => this.#stallTimer?.refresh(),
    });
    this.#process = program;
    const onAbort = (): void => this.#end(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    const startTimer = afterMs(startTimeoutMs, (time) => {
      this.#stop({ code: 'tool.stalled', how: `was not ready after ${time} and was stopped` });
    });
    this.#stallTimer = afterMs(stallTimeoutMs, (time) => this.#onStall(time));
    void program.ended
      .then((ending) => {
        const early = { code: 'tool.failed', how: 'ended before it was told to' } as const;
        const stopped = this.#stopped ?? (ending.exitCode === 0 ? early : undefined);
        return programFailure(name, file, ending, this.#lastLines, stopped);
      })
      .catch((error: unknown) => error)
      .then((error) => {
        clearTimeout(startTimer);
        clearTimeout(this.#stallTimer);
        signal?.removeEventListener('abort', onAbort);
        this.#failure ??= error;
        for (const queue of [this.#hello, ...this.#requests.values()]) queue.end(this.#failure);
      });
    const hello = await this.#hello.take();
    clearTimeout(startTimer);
    return hello ?? {};
  }

  async *request(
    message: Readonly<Record<string, unknown>>,
    signal?: AbortSignal,
  ): AsyncGenerator<Reply> {
    signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure;
    const queue = new ReplyQueue();
    const id = this.#nextId++;
    // Its silence counts from now; with others before it, it counts already.
    if (this.#requests.size === 0) this.#stallTimer?.refresh();
    this.#requests.set(id, queue);
    this.#process?.write(`${JSON.stringify({ id, ...message })}\n`);
    const onAbort = (): void => queue.end(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (let reply = await queue.take(); reply !== undefined; reply = await queue.take()) {
        yield reply;
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      queue.leave();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const isBusy = this.#requests.size > 0;
    this.#failure ??= new WeldlineError('tool.failed', `${this.#options.name} was closed.`);
    this.#process?.closeInput();
    const timer = setTimeout(() => this.#kill(), isBusy ? 0 : CLOSE_TIMEOUT_MS);
    await this.#process?.ended.catch(() => {});
    clearTimeout(timer);
  }

  /** @returns a promise where the program has to wait until its replies are taken */
  #receive(line: string): Promise<void> | undefined {
    if (this.#stopped !== undefined || line.trim() === '') return undefined;
    const reply = parseReply(line);
    if (!this.#isReady && reply?.['ready'] === true) {
      this.#isReady = true;
      void this.#hello.put(reply);
      return undefined;
    }
    const id = Number(reply?.['id']);
    const queue = this.#requests.get(id);
    if (reply === undefined || queue === undefined) {
      const quote = forPeople(line.slice(0, QUOTE_LENGTH_MAX));
      this.#stop({
        code: 'tool.failed',
        how: `printed what is no reply: "${quote}". It was stopped`,
      });
      return undefined;
    }
    const { error, done } = reply;
    if (error === undefined && done !== true) return this.#deliver(queue, reply);
    this.#requests.delete(id);
    queue.end(error === undefined ? undefined : this.#refusal(String(error)));
    return undefined;
  }

  async #deliver(queue: ReplyQueue, reply: Reply): Promise<void> {
    this.#isDelivering = true;
    await queue.put(reply);
    this.#isDelivering = false;
  }

  #refusal(text: string): WeldlineError {
    const code = failureCode(text);
    const lines = text.trim().split('\n').slice(-ERROR_LINES_MAX).map(forPeople);
    const said = lines.join('\n  ');
    return new WeldlineError(code, `${this.#options.name}: ${said}${advice(code)}`);
  }

  /** Silence is its fault only when it has something to do and its replies are taken. */
  #onStall(time: string): void {
    if (this.#requests.size === 0 || this.#isDelivering) this.#stallTimer?.refresh();
    else this.#stop({ code: 'tool.stalled', how: `printed nothing for ${time} and was stopped` });
  }

  #stop(why: Stopped): void {
    this.#stopped ??= why;
    this.#kill();
  }

  #end(reason: unknown): void {
    this.#failure ??= reason;
    this.#kill();
  }

  #kill(): void {
    // Its end comes after all its output, which must not wait for who asked.
    for (const queue of this.#requests.values()) queue.leave();
    void this.#process?.kill();
  }
}

function parseReply(line: string): Reply | undefined {
  try {
    const value: unknown = JSON.parse(line);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Reply) : undefined;
  } catch {
    return undefined;
  }
}
