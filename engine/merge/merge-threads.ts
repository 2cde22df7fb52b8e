import { Worker } from 'node:worker_threads';
import { type ErrorCode, WeldlineError } from '../errors.ts';
import { type MergeWorkerData, type MergeWorkerMessage, STOP } from './merge-worker.ts';

/** Sources run as they are in a checkout; the published package holds them compiled. */
const WORKER_URL = new URL(
  import.meta.url.endsWith('.ts') ? './merge-worker.ts' : './merge-worker.js',
  import.meta.url,
);

/** A worker holds no JavaScript data to speak of; its weights are in WebAssembly memory. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

/**
 * Runs worker threads over `data.chunks` until all are done.
 *
 * @param onChunk gets every finished chunk, in any order; its bytes are written but not yet synced
 * @throws the first error of any thread; the signal's reason if it is aborted
 */
export async function runMergeThreads(
  data: MergeWorkerData,
  threads: number,
  onChunk: (index: number, crc32: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const control = new Int32Array(data.control);
  const stop = (): void => void Atomics.store(control, STOP, 1);
  signal?.addEventListener('abort', stop);
  if (signal?.aborted === true) stop();
  let failure: WeldlineError | undefined;
  const fail = (code: ErrorCode, message: string): void => {
    failure ??= new WeldlineError(code, message);
    stop();
  };
  const runOne = (): Promise<void> =>
    new Promise((resolve) => {
      const worker = new Worker(WORKER_URL, { workerData: data, resourceLimits: RESOURCE_LIMITS });
      worker.on('message', (message: MergeWorkerMessage) => {
        if (message.kind === 'error') fail(message.code, message.message);
        else onChunk(message.index, message.crc32);
      });
      worker.on('error', (error) => {
        fail('merge.worker-crashed', `A merge thread crashed: ${error.message}. Resume to go on.`);
      });
      worker.on('exit', () => resolve());
    });
  try {
    const count = Math.min(threads, Math.max(1, data.chunks.length));
    await Promise.all(Array.from({ length: count }, runOne));
  } finally {
    signal?.removeEventListener('abort', stop);
  }
  if (failure !== undefined) throw failure;
  signal?.throwIfAborted();
}
