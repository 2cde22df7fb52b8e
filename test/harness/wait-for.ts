import { setTimeout as sleep } from 'node:timers/promises';

/** Nothing in the tests takes that long; on a machine that swaps it might. */
const WAIT_TIMEOUT_MS = 150_000;
const POLL_MS = 30;

/** Looks again and again until there is something to see. */
export async function waitFor<T>(
  what: string,
  look: () => Promise<T | undefined>,
  timeoutMs = WAIT_TIMEOUT_MS,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await sleep(POLL_MS);
  }
}
