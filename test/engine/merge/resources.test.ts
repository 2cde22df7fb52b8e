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
