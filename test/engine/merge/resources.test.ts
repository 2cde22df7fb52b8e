import fc from 'fast-check';
import { expect, test } from 'vitest';
import { chooseResources } from '../../../engine/merge/resources.ts';
import { planMerge } from '../../../engine/plan/plan-merge.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

const plan = await planMerge(
  memoryFiles('base', baseFiles(tinyBase())),
  [{ id: 'a', ...memoryFiles('adapter', adapterFiles(tinyAdapter())) }],
  {},
);

test('what is chosen keeps to the budget and the threads, or is refused', () => {
  const budget = fc.integer({ min: 1, max: 500_000_000 });
  fc.assert(
    fc.property(budget, fc.integer({ min: 1, max: 64 }), (memoryBudgetBytes, threads) => {
      try {
        const resources = chooseResources(plan, { threads, memoryBudgetBytes });
        expect(resources.memoryBytes).toBeLessThanOrEqual(memoryBudgetBytes);
        expect(resources.threads).toBeGreaterThanOrEqual(1);
        expect(resources.threads).toBeLessThanOrEqual(Math.min(threads, 8));
      } catch (error) {
        expect(error).toMatchObject({ code: 'plan.budget-too-small' });
        expect(memoryBudgetBytes).toBeLessThan(150_000_000);
      }
    }),
  );
});

test('a smaller budget never gives more threads', () => {
  let threads = 8;
  for (
    let memoryBudgetBytes = 400_000_000;
    memoryBudgetBytes > 160_000_000;
    memoryBudgetBytes -= 1e7
  ) {
    const chosen = chooseResources(plan, { threads: 8, memoryBudgetBytes });
    expect(chosen.threads).toBeLessThanOrEqual(threads);
    threads = chosen.threads;
  }
});

test.each([
  [{ streamsInput: true }, { blocks: 8, parts: 0 }],
  [{ partBytes: 8_388_608 }, { blocks: 0, parts: 2 }],
  [
    { streamsInput: true, partBytes: 8_388_608 },
    { blocks: 8, parts: 2 },
  ],
])('%j: what goes over a network is counted', (streams, least) => {
  const { memoryBytes: plain } = chooseResources(plan, { threads: 2 });
  const roomy = chooseResources(plan, { threads: 2, ...streams });
  expect(roomy.threads).toBe(2);
  expect(roomy.memoryBytes).toBeLessThanOrEqual(400_000_000);
  expect(roomy.streaming?.blocks).toBeGreaterThanOrEqual(least.blocks);
  const buffers = 4_194_304 * least.blocks + 8_388_608 * least.parts;
  expect(roomy.memoryBytes).toBeGreaterThan(plain + buffers);
  // What is left of a small budget goes to the threads first.
  const memoryBudgetBytes = plain + buffers + 100_000_000;
  expect(chooseResources(plan, { threads: 2, memoryBudgetBytes, ...streams })).toMatchObject({
    ...{ threads: 2, memoryBytes: memoryBudgetBytes, streaming: least },
  });
  expect(() =>
    chooseResources(plan, { threads: 1, memoryBudgetBytes: 140_000_000, ...streams }),
  ).toThrow(/Raise memory_budget/);
});
