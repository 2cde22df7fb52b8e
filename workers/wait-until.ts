import { setTimeout as sleep } from 'node:timers/promises';

export interface WaitOptions {
  timeoutMs: number;
  pollMs: number;
  signal?: AbortSignal | undefined;
}

/**
 * Tries `condition` until it holds.
 *
 * @returns whether it held before the time was up
 * @throws the reason of `signal` when that aborts the wait
 */
export async function waitUntil(
  condition: () => Promise<boolean> | boolean,
  { timeoutMs, pollMs, signal }: WaitOptions,
): Promise<boolean> {
  // Monotonic: a corrected clock neither ends a wait nor prolongs it.
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    if (await condition()) return true;
    if (performance.now() > deadline) return false;
    try {
      await sleep(pollMs, undefined, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }
}
