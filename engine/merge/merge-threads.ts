import { Worker } from 'node:worker_threads';
import { type ErrorCode, WeldlineError } from '../errors.ts';
import { stop } from './merge-control.ts';
import type { MergeWorkerData, MergeWorkerMessage } from './merge-worker.ts';
import { windowCount } from './windows.ts';

/** Sources run as they are in a checkout; the published package holds them compiled. */
const WORKER_URL = new URL(
  import.meta.url.endsWith('.ts') ? './merge-worker.ts' : './merge-worker.js',
  import.meta.url,
);

/** A worker holds no JavaScript data to speak of; its weights are in WebAssembly memory. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

export type WindowMessage = Exclude<MergeWorkerMessage, { kind: 'error' }>;

/**
 * Runs worker threads over `data.windows` until all are done.
 *
 * @param onWindow gets what the threads say of their windows, in any order
 * @throws the first error of any thread; the signal's reason if it is aborted
 */
export async function runMergeThreads(
  data: MergeWorkerData,
  threads: number,
  onWindow: (message: WindowMessage) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
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
      const worker = new Worker(WORKER_URL, { workerData: data, resourceLimits: RESOURCE_LIMITS });
      worker.on('message', (message: MergeWorkerMessage) => {
        if (message.kind === 'error') fail(message.code, message.message);
        else onWindow(message);
      });
      worker.on('error', (error) => {
        fail('merge.worker-crashed', `A merge thread crashed: ${error.message}. Resume to go on.`);
      });
      worker.on('exit', () => resolve());
    });
  try {
    const count = Math.min(threads, windowCount(data.windows));
    await Promise.all(Array.from({ length: count }, runOne));
  } finally {
    signal?.removeEventListener('abort', halt);
  }
  if (failure !== undefined) throw failure;
  signal?.throwIfAborted();
}
