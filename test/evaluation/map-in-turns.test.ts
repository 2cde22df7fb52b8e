import { expect, it } from 'vitest';
import { mapInTurns } from '../../evaluation/map-in-turns.ts';

function busy(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

it('lets timers through while it maps', async () => {
  let beats = 0;
  const beat = setInterval(() => beats++, 10);
  const items = Array.from({ length: 40 }, (_, index) => index);
  const doubled = await mapInTurns(items, (item, index) => {
    busy(10);
    return item + index;
  });
  clearInterval(beat);
  expect(doubled).toEqual(items.map((item) => 2 * item));
  // 400 ms in turns of 50; without turns there would be none.
  expect(beats).toBeGreaterThan(3);
});

it('gives what is thrown', async () => {
  const failing = mapInTurns([1, 2], (item) => {
    if (item === 2) throw new Error('two');
  });
  await expect(failing).rejects.toThrow('two');
  expect(await mapInTurns([], () => 1)).toEqual([]);
});
