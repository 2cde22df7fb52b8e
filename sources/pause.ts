import { setTimeout as sleep } from 'node:timers/promises';

/** Waits; rejects with the signal's own reason, where Node's timer makes an error of its own. */
export async function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(delayMs, undefined, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
