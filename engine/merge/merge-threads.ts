import type { BlockReader } from './block-reader.ts';
import type { MergeWorkerData, WindowMessage } from './merge-worker.ts';
import { runThreads, threadUrl } from './run-threads.ts';
import { windowCount } from './windows.ts';

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
  reader: BlockReader | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const count = Math.min(threads, windowCount(data.windows));
  const url = threadUrl('merge-worker');
  await runThreads({ url, data, count, onMessage: onWindow, reader, signal });
}
