import { parentPort, Worker, workerData } from 'node:worker_threads';
import { type ErrorCode, WeldlineError } from '../errors.ts';
import { toWeldlineError } from '../to-weldline-error.ts';
import type { BlockReader } from './block-reader.ts';
import { stop, wakeReaders } from './merge-control.ts';
import { answer, isReadRequest, type ReadRequest } from './read-request.ts';

/** A worker holds no JavaScript data to speak of; its weights are in WebAssembly memory. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

/** What every thread may say: that it failed. */
interface ThreadError {
  readonly kind: 'error';
  readonly code: ErrorCode;
  readonly message: string;
}

export interface RunThreadsOptions<Data, Message> {
  readonly url: URL;
  readonly data: Data & { readonly control: SharedArrayBuffer };
  readonly count: number;
  /** Gets what the threads say, in any order. */
  readonly onMessage: (message: Message) => void;
  /** Reads what threads ask for of streamed inputs. */
  readonly reader?: BlockReader | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Where a worker thread's module is: sources run as they are in a checkout; the published package
 * holds them compiled.
 *
 * @param name without its ending
 */
export function threadUrl(name: string): URL {
  return new URL(`./${name}${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);
}

/**
 * Runs worker threads until all have ended. The first error of one, or the signal, stops the others
 * through their control (`merge-control.ts`).
 *
 * @throws the signal's reason if it is aborted; else the first error of any thread
 */
export async function runThreads<Data, Message extends { readonly kind: string }>({
  url,
  data,
  count,
  onMessage,
  reader,
  signal,
}: RunThreadsOptions<Data, Message>): Promise<void> {
  const control = new Int32Array(data.control);
  const halt = (): void => stop(control);
  signal?.addEventListener('abort', halt);
  if (signal?.aborted === true) halt();
  let failure: WeldlineError | undefined;
  const fail = (error: WeldlineError): void => {
    failure ??= error;
    halt();
  };
  const read = async ({ input, file, position, into, reply }: ReadRequest): Promise<void> => {
    try {
      await reader?.read(input, file, position, into);
      answer(reply);
      wakeReaders(control);
    } catch (error) {
      fail(toWeldlineError(error));
    }
  };
  const runOne = (): Promise<void> =>
    new Promise((resolve) => {
      const worker = new Worker(url, { workerData: data, resourceLimits: RESOURCE_LIMITS });
      worker.on('message', (message: Message | ThreadError | ReadRequest) => {
        if (isError(message)) fail(new WeldlineError(message.code, message.message));
        else if (isReadRequest(message)) void read(message);
        else onMessage(message);
      });
      worker.on('error', ({ message }) => {
        const text = `A merge thread crashed: ${message}. Resume to go on.`;
        fail(new WeldlineError('merge.worker-crashed', text));
      });
      worker.on('exit', () => resolve());
    });
  try {
    await Promise.all(Array.from({ length: count }, runOne));
  } finally {
    signal?.removeEventListener('abort', halt);
  }
  // First: threads that were stopped while they waited for bytes fail for that.
  signal?.throwIfAborted();
  if (failure !== undefined) throw failure;
}

function isError(message: { readonly kind: string }): message is ThreadError {
  return message.kind === 'error';
}

/**
 * In a worker thread: does its work, and says so if an error ends it. Elsewhere, as where a module is only
 * loaded, nothing.
 */
export function asThread<Data, Message>(
  run: (data: Data, report: (message: Message | ReadRequest) => void) => void,
): void {
  if (parentPort === null || workerData === null) return;
  const port = parentPort;
  try {
    run(workerData as Data, (message) => port.postMessage(message));
  } catch (error) {
    const { code, message } = toWeldlineError(error);
    port.postMessage({ kind: 'error', code, message } satisfies ThreadError);
  }
}
