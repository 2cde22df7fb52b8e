/**
 * The merged checkpoint must answer as the adapter on its base does: the whole road, judged by
 * transformers and PEFT. The models are real: the example of this repository, and SmolLM2-135M.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runOracle } from '../oracle-python.ts';
import {
  answer,
  answersOf,
  merge,
  SMOLLM2,
  SMOLLM2_FIXTURES,
  TIMEOUT_MS,
  TINY,
  useOutputs,
} from './answers.ts';
import { measureAccuracy } from './merge-accuracy.ts';

interface Comparison {
  readonly ppm: number;
}

/** Elements that differ from PEFT's merge, per million. */
const DIFFERING_PER_MILLION_MAX = 5;

/** Where elements differ, either side may be the nearer one; all others have one error. */
const MEAN_ERROR_RATIO_MAX = 1 + 1e-9;

const outputPath = useOutputs();

test(
  'the merged example answers as its adapters on the base do',
  async () => {
    const base = join(TINY, 'base');
    const adapters = ['calculator', 'extractor'] as const;
    const candidates: Record<string, string> = { base };
    for (const adapter of adapters) {
      const path = join(TINY, 'adapters', adapter);
      candidates[adapter] = `${base}:${path}`;
      candidates[`${adapter}-merged`] = await merge(base, [path], adapter);
    }
    const evaluations = adapters.map((adapter) => join(TINY, 'eval', `${adapter}.jsonl`));
    const results = await answer(candidates, evaluations);
    for (const adapter of adapters) {
      const onBase = results[adapter]?.[adapter];
      const merged = results[`${adapter}-merged`]?.[adapter];
      expect(onBase?.correct).toBeGreaterThanOrEqual(0.9 * (onBase?.total ?? Infinity));
      expect(results['base']?.[adapter]?.correct).toBeLessThan(0.2 * (onBase?.total ?? 0));
      expect(answersOf(merged)).toEqual(answersOf(onBase));
    }
  },
  TIMEOUT_MS,
);

test(
  'SmolLM2 merged answers as its adapters on the base do, and equals the merge of PEFT',
  async () => {
    const candidates: Record<string, string> = {};
    for (const adapter of ['a', 'b'] as const) {
      const path = join(SMOLLM2_FIXTURES, `adapter-${adapter}`);
      candidates[adapter] = `${SMOLLM2}:${path}`;
      candidates[`${adapter}-merged`] = await merge(SMOLLM2, [path], `smollm2-${adapter}`);
    }
    const evaluations = [
      join(SMOLLM2_FIXTURES, 'eval-a.jsonl'),
      join(SMOLLM2_FIXTURES, 'eval-b.jsonl'),
    ];
    const results = await answer(candidates, evaluations);
    for (const adapter of ['a', 'b'] as const) {
      const evaluation = `eval-${adapter}`;
      const onBase = results[adapter]?.[evaluation];
      const merged = results[`${adapter}-merged`]?.[evaluation];
      expect(onBase?.correct).toBe(onBase?.total);
      expect(answersOf(merged)).toEqual(answersOf(onBase));
    }

    const peft = outputPath('peft');
    const adapter = join(SMOLLM2_FIXTURES, 'adapter-a');
    await runOracle('peft_merge.py', ['--base', SMOLLM2, '--adapter', adapter, '--out', peft]);
    const merged = candidates['a-merged'] ?? '';
    const comparison = JSON.parse(
      await runOracle('compare.py', [peft, merged, '--json', '-']),
    ) as Comparison;
    expect(comparison.ppm).toBeLessThanOrEqual(DIFFERING_PER_MILLION_MAX);
    const accuracy = await measureAccuracy({ base: SMOLLM2, adapter, ours: merged, peft });
    const { elements, differing, unexplained, oursMeanError, peftMeanError } = accuracy;
    expect(elements).toBeGreaterThan(100_000_000);
    expect((differing / elements) * 1e6).toBeLessThanOrEqual(DIFFERING_PER_MILLION_MAX);
    expect(unexplained).toBe(0);
    expect(oursMeanError / peftMeanError).toBeLessThanOrEqual(MEAN_ERROR_RATIO_MAX);
  },
  TIMEOUT_MS,
);
