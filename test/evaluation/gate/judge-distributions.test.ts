import { describe, expect, it } from 'vitest';
import type { RecipeSuite } from '../../../config/release-quality.ts';
import { decideGate, type GateInput } from '../../../evaluation/gate/decide-gate.ts';
import { isMergeExact } from '../../../evaluation/gate/is-merge-exact.ts';
import type { ArtefactDecision } from '../../../evaluation/gate-decision.ts';
import type { SuiteResult } from '../../../evaluation/results.ts';
import { comparisonWith, gateInput, resultOf, suiteOf } from './gate-input.ts';

const SOUND = { base: 0, 'adapter:a': 20, merged: 20, 'gguf-q4_k_m': 20 };

/** A release that scores well, with other results of some candidates. */
function withResults(
  changes: Readonly<Record<string, Partial<SuiteResult>>>,
  suite: Partial<RecipeSuite> = {},
): GateInput {
  const input = gateInput(SOUND, { suite });
  return {
    ...input,
    results: input.results.map((each) => ({ ...each, ...changes[each.candidate] })),
  };
}

function judge(input: GateInput, id: string): ArtefactDecision {
  return decideGate(input).artefacts.find(({ candidate }) => candidate === id)!;
}

const signalsOf = (input: GateInput, id = 'merged') =>
  judge(input, id).failures.map(({ signal }) => signal);

describe('merged, which is to compute what the adapter on its base computes', () => {
  it.each([
    ['a correct merge into bfloat16', 2.343e-4, []],
    ['a layer of 30 whose delta is left out', 2.056e-3, ['distributions-differ']],
    ['the adapter at twice its scale', 2.703, ['distributions-differ']],
    ['the wrong adapter', 6.474, ['distributions-differ']],
    ['a model that computes no numbers', Number.NaN, ['kl-too-large', 'distributions-differ']],
  ])('is judged by its distributions where the scores are the same: %s', (_, kl, expected) => {
    const input = withResults({ merged: { comparison: comparisonWith('adapter:a', kl) } });
    expect(signalsOf(input).toSorted()).toEqual(expected.toSorted());
  });

  it('is allowed what bfloat16 arithmetic does, where a runner says that it is that', () => {
    const judged = (kl: number) =>
      signalsOf(
        withResults({
          merged: { comparison: comparisonWith('adapter:a', kl), runner: 'torch 2.11.0, bfloat16' },
        }),
      );
    expect(judged(3.2e-3)).toEqual([]);
    expect(judged(1.7e-1)).toEqual(['distributions-differ']);
  });

  it('is told the figure', () => {
    const input = withResults({ merged: { comparison: comparisonWith('adapter:a', 0.0020561) } });
    expect(judge(input, 'merged').failures[0]?.message).toBe(
      'the mean KL divergence from adapter:a is 0.00206 nats per token, where rounding explains ' +
        '0.001: it does not compute what the adapter on its base computes',
    );
  });

  it('is not judged so where it is to be another model', () => {
    const merged = { comparison: comparisonWith('adapter:a', 0.5) };
    expect(signalsOf({ ...withResults({ merged }), isMergeExact: false })).toEqual([]);
    const beside = { comparison: comparisonWith('base', 0.5) };
    expect(signalsOf(withResults({ merged: beside }))).toEqual([]);
  });

  it('is not excused by a generous max_kl, which is about quantization', () => {
    const input = withResults(
      {
        merged: { comparison: comparisonWith('adapter:a', 0.05) },
        'gguf-q4_k_m': { comparison: comparisonWith('gguf-f16', 0.05) },
      },
      { klMax: 0.1 },
    );
    expect(signalsOf(input)).toEqual(['distributions-differ']);
    expect(judge(input, 'merged').suites[0]?.klMax).toBe(0.001);
    expect(signalsOf(input, 'gguf-q4_k_m')).toEqual(['held-back-with-merged']);
    expect(judge(input, 'gguf-q4_k_m').suites[0]?.klMax).toBe(0.1);
  });

  it('comes with a warning where nothing was compared', () => {
    const { passed, warnings } = judge(
      withResults({ merged: { comparison: undefined! } }),
      'merged',
    );
    expect(passed).toBe(true);
    expect(warnings.map(({ signal }) => signal)).toEqual(['not-evaluated']);
  });
});

describe('max_kl', () => {
  const withKl = (kl: number, klMax: number) =>
    withResults(
      {
        merged: { comparison: comparisonWith('adapter:a', 1e-5) },
        'gguf-q4_k_m': { comparison: comparisonWith('gguf-f16', kl) },
      },
      { klMax },
    );

  it('holds for every artefact beside what it is compared with', () => {
    expect(signalsOf(withKl(0.05, 0.05), 'gguf-q4_k_m')).toEqual([]);
    expect(judge(withKl(0.0513, 0.05), 'gguf-q4_k_m').failures).toEqual([
      {
        signal: 'kl-too-large',
        suite: 'support',
        message: 'the mean KL divergence from gguf-f16 is 0.0513 nats per token, above max_kl 0.05',
      },
    ]);
  });

  it('is not met by what was to be measured and was not', () => {
    const input = withKl(0.01, 0.05);
    const unmeasured = (changes: Partial<SuiteResult>, comparedWith: object): GateInput => ({
      ...input,
      candidates: input.candidates.map((step) =>
        step.kind === 'gguf' ? { ...step, ...comparedWith } : step,
      ),
      results: input.results.map((each) =>
        each.candidate === 'gguf-q4_k_m' ? { ...each, ...changes } : each,
      ),
    });
    const missing = { comparison: undefined! };
    const empty = { comparison: comparisonWith('gguf-f16', 0, { positions: 0 }) };
    for (const changes of [missing, empty]) {
      const one = unmeasured(changes, { comparedWith: 'gguf-f16' });
      expect(judge(one, 'gguf-q4_k_m').failures).toEqual([
        {
          signal: 'not-evaluated',
          suite: 'support',
          message: 'max_kl 0.05 asks for its divergence from gguf-f16, which was not measured',
        },
      ]);
      const bySuite = unmeasured(changes, { comparedWithBySuite: { support: 'gguf-f16' } });
      expect(signalsOf(bySuite, 'gguf-q4_k_m')).toEqual(['not-evaluated']);
    }
    // A file that others are compared with.
    const { passed, warnings } = judge(unmeasured(missing, {}), 'gguf-q4_k_m');
    expect(passed).toBe(true);
    expect(warnings.map(({ signal }) => signal)).toEqual(['not-evaluated']);
  });

  it('is not needed to refuse a divergence that is no number', () => {
    // NaN becomes null in a file.
    const nothing = JSON.parse(JSON.stringify(comparisonWith('gguf-f16', Number.NaN)));
    const input = withResults({ 'gguf-q4_k_m': { comparison: nothing } });
    expect(judge(input, 'gguf-q4_k_m').failures[0]?.message).toContain('is no number');
  });
});

describe('texts that become other tokens', () => {
  it('fail with their number', () => {
    const comparison = comparisonWith('merged', 1e-6, { tokenizedDifferently: [2, 7] });
    const input = withResults({ 'gguf-q4_k_m': { comparison } });
    expect(judge(input, 'gguf-q4_k_m').failures).toEqual([
      {
        signal: 'tokenized-differently',
        suite: 'support',
        message: '2 texts of the suite become other tokens than under merged',
      },
    ]);
  });

  it('fail where it is the text for perplexity, whose figures cannot be compared then', () => {
    const input = withResults(
      {
        'adapter:a': { perplexity: { value: 6, tokens: 1000 } },
        merged: { perplexity: { value: 6, tokens: 1000 } },
        'gguf-q4_k_m': { perplexity: { value: 60, tokens: 1001 } },
      },
      { text: '/suites/text.txt' },
    );
    expect(signalsOf(input)).toEqual([]);
    expect(signalsOf(input, 'gguf-q4_k_m')).toEqual(['tokenized-differently']);
  });
});

describe('the perplexity', () => {
  const text = suiteOf({ id: 'text', text: '/suites/text.txt' });
  const { data: _, ...textOnly } = text;

  const withPerplexity = (
    values: Readonly<Record<string, number>>,
    suite: Partial<RecipeSuite> = {},
  ): GateInput => {
    const input = gateInput(SOUND);
    return {
      ...input,
      evaluation: { suites: [{ ...textOnly, ...suite }], onFailure: 'wait' },
      candidates: input.candidates.map((step) => ({ ...step, suites: ['text'] })),
      results: Object.entries(values).map(([id, value]) =>
        resultOf(id, 0, 0, { suite: 'text', perplexity: { value, tokens: 500 } }),
      ),
    };
  };

  it('may rise by a tenth, or by what the recipe says', () => {
    const values = { 'adapter:a': 6.36, merged: 6.36, 'gguf-q4_k_m': 6.76 };
    const { passed, suites } = judge(withPerplexity(values), 'gguf-q4_k_m');
    expect(passed).toBe(true);
    expect(suites).toEqual([{ suite: 'text', reference: 'adapter:a', prompts: 0 }]);
    const strict = withPerplexity(values, { perplexityRiseMax: 0.05 });
    expect(judge(strict, 'gguf-q4_k_m').failures).toEqual([
      {
        signal: 'perplexity-rise',
        suite: 'text',
        message:
          'the perplexity is 6.76, and 6.36 of adapter:a, 6.3 % more; max_perplexity_rise allows 5 %',
      },
    ]);
  });

  it.each([
    ['risen by more', 7.1, ['perplexity-rise']],
    ['no number', Number.NaN, ['perplexity-rise']],
    ['fallen', 5, []],
  ])('is judged where it is %s', (_, value, expected) => {
    const values = { 'adapter:a': 6.36, merged: 6.36, 'gguf-q4_k_m': value };
    expect(signalsOf(withPerplexity(values), 'gguf-q4_k_m')).toEqual(expected);
  });

  it.each([6.5, 6.2])('of merged is to be the same, and not %d', (value) => {
    const input = withPerplexity({ 'adapter:a': 6.36, merged: value });
    expect(signalsOf(input)).toEqual(['distributions-differ']);
    expect(signalsOf({ ...input, isMergeExact: false })).toEqual([]);
  });

  it('that was not measured does not pass', () => {
    const input = withPerplexity({ 'adapter:a': 6.36, merged: 6.36 });
    const silent = resultOf('gguf-q4_k_m', 0, 0, { suite: 'text' });
    const judged = judge({ ...input, results: [...input.results, silent] }, 'gguf-q4_k_m');
    expect(judged.failures.map(({ message }) => message)).toEqual([
      'its perplexity on the text was not measured (llama.cpp)',
    ]);
  });
});

describe('isMergeExact', () => {
  const adapter = { id: 'a', model: '/a', weight: 1 };
  const recipe = { adapters: [adapter], combination: { method: 'linear' }, merge: {} } as const;

  it('is so for one adapter as it was trained', () => {
    expect(isMergeExact(recipe)).toBe(true);
    expect(isMergeExact({ ...recipe, merge: { mergeOnto: 'dequantized' } })).toBe(true);
  });

  it.each([
    ['several adapters', { ...recipe, adapters: [adapter, { ...adapter, id: 'b' }] as const }],
    ['a weight', { ...recipe, adapters: [{ ...adapter, weight: 0.5 }] as const }],
    ['a rank that is cut', { ...recipe, combination: { method: 'svd' } as const }],
    ['other weights', { ...recipe, merge: { mergeOnto: 'simulated_nf4' } as const }],
  ])('is not so for %s', (_, other) => {
    expect(isMergeExact(other)).toBe(false);
  });

  it('is not so on a base that rounds what it multiplies too', () => {
    const quantizedWith = (settings: object) => ({ quantization_config: settings });
    expect(isMergeExact(recipe, quantizedWith({ load_in_8bit: true }))).toBe(false);
    expect(isMergeExact(recipe, quantizedWith({ load_in_4bit: true }))).toBe(true);
  });
});
