import { describe, expect, it } from 'vitest';
import type { RecipeEvaluation, RecipeSuite } from '../../config/release-quality.ts';
import type { ConversionStep } from '../../conversion/conversion-step.ts';
import type { CandidateStep } from '../../evaluation/candidate.ts';
import { planCandidates } from '../../evaluation/plan-candidates.ts';

function suite(id: string, adapter: string, settings: Partial<RecipeSuite> = {}): RecipeSuite {
  const data = `/suites/${id}.jsonl`;
  return { id, adapter, data, matcher: 'contains', newTokensMax: 8, dropMax: 0, ...settings };
}

/** A suite of text only. */
function textSuite(id: string, adapter: string): RecipeSuite {
  const { data: _, ...rest } = suite(id, adapter);
  return { ...rest, text: '/suites/text.txt' };
}

const STEPS: readonly ConversionStep[] = [
  { kind: 'gguf', id: 'gguf-q4_k_m', type: 'Q4_K_M', after: 'gguf-f16', wanted: true },
  { kind: 'gguf', id: 'gguf-f16', type: 'F16', wanted: false },
  { kind: 'gguf-adapter', id: 'gguf-adapter-a', adapter: 'a' },
  {
    kind: 'awq',
    id: 'awq-w4a16-g128',
    settings: {
      ...{ kind: 'awq', bits: 4, groupSize: 128, symmetric: true, ignore: [] },
      ...{ calibration: '/c.jsonl', samples: 8, sequenceLength: 64 },
    },
  },
];

function plan(
  suites: readonly RecipeSuite[],
  options: {
    steps?: readonly ConversionStep[];
    adapterIds?: readonly string[];
    models?: Record<string, string>;
  } = {},
): readonly CandidateStep[] {
  const { steps = [], adapterIds = ['a'], models } = options;
  const evaluation: RecipeEvaluation = {
    suites,
    onFailure: 'wait',
    ...(models === undefined ? {} : { endpoint: { url: 'http://127.0.0.1:1/v1', models } }),
  };
  return planCandidates({ evaluation, steps, adapterIds });
}

describe('the plan of candidates', () => {
  it('has the base, the adapter on it, the merged model and all conversions, references first', () => {
    const suites = ['one'];
    expect(plan([suite('one', 'a')], { steps: STEPS })).toEqual([
      { id: 'base', kind: 'base', runner: 'transformers', suites },
      { id: 'adapter:a', kind: 'adapter', runner: 'transformers', suites, referenceOf: suites },
      {
        ...{ id: 'merged', kind: 'merged', runner: 'transformers', suites },
        ...{ comparedWith: 'adapter:a', referenceOf: suites },
      },
      {
        ...{ id: 'gguf-f16', kind: 'gguf', conversion: 'gguf-f16', runner: 'llama.cpp', suites },
        referenceOf: suites,
      },
      {
        ...{ id: 'gguf-q4_k_m', kind: 'gguf', conversion: 'gguf-q4_k_m', runner: 'llama.cpp' },
        ...{ comparedWith: 'gguf-f16', suites },
      },
      {
        ...{ id: 'awq-w4a16-g128', kind: 'awq', conversion: 'awq-w4a16-g128' },
        ...{ runner: 'transformers', comparedWith: 'merged', suites },
      },
    ]);
  });

  it('compares each suite with its own adapter', () => {
    const candidates = plan([suite('one', 'a'), suite('two', 'b'), suite('three', 'a')], {
      adapterIds: ['a', 'b', 'unused'],
    });
    expect(candidates.map(({ id, suites }) => [id, suites])).toEqual([
      ['base', ['one', 'two', 'three']],
      ['adapter:a', ['one', 'three']],
      ['adapter:b', ['two']],
      ['merged', ['one', 'two', 'three']],
    ]);
    const merged = candidates.at(-1)!;
    expect(merged.comparedWith).toBeUndefined();
    expect(merged.comparedWithBySuite).toEqual({
      ...{ one: 'adapter:a', three: 'adapter:a' },
      two: 'adapter:b',
    });
    expect(candidates[1]!.referenceOf).toEqual(['one', 'three']);
  });

  it('leaves the base out where there is nothing to answer', () => {
    const candidates = plan([textSuite('prose', 'a')]);
    expect(candidates.map(({ id }) => id)).toEqual(['adapter:a', 'merged']);
  });

  it('asks an endpoint what it has, and compares nothing with it', () => {
    const candidates = plan([suite('one', 'a')], {
      steps: STEPS,
      models: { 'adapter:a': 'tuned', 'awq-w4a16-g128': 'small' },
    });
    const byId = Object.fromEntries(candidates.map((candidate) => [candidate.id, candidate]));
    expect(byId['adapter:a']).toMatchObject({ runner: 'endpoint' });
    expect(byId['merged']).toMatchObject({ runner: 'transformers' });
    expect(byId['awq-w4a16-g128']).toMatchObject({ runner: 'endpoint' });
    for (const id of ['adapter:a', 'merged', 'awq-w4a16-g128']) {
      expect(byId[id]).not.toHaveProperty('comparedWith');
      expect(byId[id]).not.toHaveProperty('referenceOf');
    }
    expect(byId['gguf-q4_k_m']).toMatchObject({ comparedWith: 'gguf-f16' });
  });

  it('refuses names of the endpoint that are no candidates', () => {
    expect(() => plan([suite('one', 'a')], { models: { merge: 'x' } })).toThrow(
      /"merge", which is no candidate; did you mean "merged"\?.*There is base, adapter:a, merged/,
    );
  });

  it('refuses to measure perplexity at an endpoint', () => {
    expect(() => plan([textSuite('prose', 'a')], { models: { merged: 'x' } })).toThrow(
      /perplexity of "merged".*"prose"/,
    );
  });
});
