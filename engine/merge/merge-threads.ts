import { Worker } from 'node:worker_threads';
import { type ErrorCode, WeldlineError } from '../errors.ts';
import { stop } from './merge-control.ts';

/** Sources run as they are in a checkout; the published package holds them compiled. */
const ENDING = import.meta.url.endsWith('.ts') ? 'ts' : 'js';

/** A worker holds no JavaScript data to speak of; its weights are in WebAssembly memory. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

/** What any thread may report of itself. */
export interface ThreadFailure {
  readonly kind: 'error';
  readonly code: ErrorCode;
  readonly message: string;
}

/**
 * Runs one script in several threads until all have ended.
 *
 * @param script beside this file, without its ending
 * @param data for each; `control` is of `merge-control.ts`
 * @param onMessage gets what the threads say, in any order
 * @throws the first error of any thread; the signal's reason if it is aborted
 */
export async function runThreads<Message extends { readonly kind: string }>(
  script: 'merge-worker' | 'factor-worker',
  data: { readonly control: SharedArrayBuffer },
  count: number,
  onMessage: (message: Message) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const url = new URL(`./${script}.${ENDING}`, import.meta.url);
  const control = new Int32Array(data.control);
  const halt = (): void => stop(control);
  signal?.addEventListener('abort', halt);
  if (signal?.aborted === true) halt();
  let failure: WeldlineError | undefined;
  const fail = (code: ErrorCode, message: string): void => {
    failure ??= new WeldlineError(code, message);
    halt();
  };
  const runOne = (): Promise<void> =>
    new Promise((resolve) => {
      const worker = new Worker(url, { workerData: data, resourceLimits: RESOURCE_LIMITS });
      worker.on('message', (message: Message | ThreadFailure) => {
        if (isFailure(message)) fail(message.code, message.message);
        else onMessage(message);
      });
      worker.on('error', (error) => {
        fail('merge.worker-crashed', `A merge thread crashed: ${error.message}. Resume to go on.`);
      });
      worker.on('exit', () => resolve());
    });
  try {
    await Promise.all(Array.from({ length: count }, runOne));
  } finally {
    signal?.removeEventListener('abort', halt);
  }
  if (failure !== undefined) throw failure;
  signal?.throwIfAborted();
}

function isFailure(message: { readonly kind: string }): message is ThreadFailure {
  return message.kind === 'error';
}
