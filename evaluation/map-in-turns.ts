import { setImmediate as nextTurn } from 'node:timers/promises';

/** Far below the interval of heartbeats, and long beside what a turn costs. */
const TURN_MS = 50;

/**
 * `Array.map` for work of milliseconds on thousands of items: it lets other work of the thread through
 * now and then. Without heartbeats for ten seconds a worker is taken for dead.
 */
export async function mapInTurns<T, R>(
  items: readonly T[],
  map: (item: T, index: number) => R,
): Promise<R[]> {
  const results: R[] = [];
  let turnEndsAt = performance.now() + TURN_MS;
  for (const [index, item] of items.entries()) {
    results.push(map(item, index));
    if (performance.now() < turnEndsAt) continue;
    await nextTurn();
    turnEndsAt = performance.now() + TURN_MS;
  }
  return results;
}
