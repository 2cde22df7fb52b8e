import { WeldlineError } from '../engine/errors.ts';
import { pauseAfter } from '../remote/http.ts';
import type { Patience } from '../remote/patience.ts';

/** Less than this between two failures is no progress: a server of single bytes is not one. */
const PROGRESS_BYTES_MIN = 1024 * 1024;

export interface RangeRequests {
  /** What is read, for errors. */
  readonly name: string;
  /** Of the first byte. */
  readonly offset: number;
  readonly patience: Patience;
  readonly signal: AbortSignal;
  /** The bytes from `begin` on, at least `length` if the connection holds. */
  readonly request: (begin: number, length: number) => Promise<AsyncIterable<Uint8Array>>;
}

/**
 * Fills `bytes` over a network: goes on at the byte reached when a connection breaks; without progress,
 * only so many times.
 * @throws WeldlineError `source.unavailable`, what `request` throws, or the signal's reason
 */
export async function fillByRange(bytes: Uint8Array, requests: RangeRequests): Promise<void> {
  const { name, offset, patience, signal } = requests;
  let filled = 0;
  for (let failures = 0; filled < bytes.byteLength; ) {
    // It is patient itself; only what breaks on the way is begun again here.
    const body = await requests.request(offset + filled, bytes.byteLength - filled);
    const before = filled;
    try {
      for await (const chunk of body) {
        const part = chunk.subarray(0, bytes.byteLength - filled);
        bytes.set(part, filled);
        filled += part.byteLength;
        if (filled === bytes.byteLength) break;
      }
      if (filled < bytes.byteLength) throw cutShort(name, offset + filled);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof WeldlineError) || error.code !== 'source.unavailable') throw error;
      failures = filled - before >= PROGRESS_BYTES_MIN ? 1 : failures + 1;
      await pauseAfter(failures, error, patience, signal);
    }
  }
}

function cutShort(name: string, position: number): WeldlineError {
  return new WeldlineError(
    'source.unavailable',
    `${name}: the answer ended early, at byte ${position}. Check the network and the proxy, and run ` +
      'again.',
  );
}
