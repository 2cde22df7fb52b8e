import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decideGate, type GateInput } from '../../../evaluation/gate/decide-gate.ts';
import type { ArtefactDecision } from '../../../evaluation/gate-decision.ts';
import { gateInput, resultOf, stepOf, suiteOf, withAnswers } from './gate-input.ts';

const SOUND = { base: 0, 'adapter:a': 20, merged: 20 };

function artefactOf(input: GateInput, id = 'merged'): ArtefactDecision {
  const artefact = decideGate(input).artefacts.find(({ candidate }) => candidate === id);
  if (artefact === undefined) throw new Error(`no decision on ${id}`);
  return artefact;
}

const signalsOf = (signals: ArtefactDecision['failures']) => signals.map(({ signal }) => signal);
const failuresOf = (input: GateInput, id?: string) => signalsOf(artefactOf(input, id).failures);
const warningsOf = (input: GateInput, id?: string) => signalsOf(artefactOf(input, id).warnings);

describe('a release that is as good as the adapter on its base', () => {
  it('passes, with all figures', () => {
    const decision = decideGate(gateInput({ ...SOUND, 'gguf-q4_k_m': 19 }));
    expect(decision.format).toBe('weldline.gate');
    expect(decision.artefacts.map(({ candidate, passed }) => [candidate, passed])).toEqual([
      ['merged', true],
      ['gguf-q4_k_m', true],
    ]);
    expect(decision.artefacts[0]).toEqual({
      candidate: 'merged',
      passed: true,
      failures: [],
      warnings: [],
      suites: [
        {
          suite: 'support',
          reference: 'adapter:a',
          prompts: 20,
          score: { value: 1, low: expect.closeTo(0.839, 3), high: 1 },
          referenceScore: { value: 1, low: expect.closeTo(0.839, 3), high: 1 },
          baseScore: { value: 0, low: 0, high: expect.closeTo(0.161, 3) },
          drop: { value: 0, low: expect.closeTo(-0.136, 3), high: expect.closeTo(0.136, 3) },
          smallestDropSeen: expect.closeTo(0.345, 3),
          kl: 0.0002,
          klMax: 0.001,
        },
      ],
    });
  });

  it('is decided the same whatever the order of the results', () => {
    const input = gateInput({ ...SOUND, 'gguf-q8_0': 13, 'gguf-q2_k': 2 });
    const expected = JSON.stringify(decideGate(input));
    fc.assert(
      fc.property(fc.shuffledSubarray([...input.results], { minLength: 5 }), (results) => {
        const shuffled = results.map((each) => ({ ...each, answers: each.answers.toReversed() }));
        expect(JSON.stringify(decideGate({ ...input, results: shuffled }))).toBe(expected);
      }),
    );
  });
});

describe('a drop of the score', () => {
  it.each([20, 19, 17, 15])('of 20 prompts to %i is no regression', (correct) => {
    const input = gateInput({ ...SOUND, 'gguf-q4_k_m': correct });
    expect(failuresOf(input, 'gguf-q4_k_m')).toEqual([]);
    expect(warningsOf(input, 'gguf-q4_k_m')).toEqual(correct === 20 ? [] : ['suite-too-small']);
  });

  it('that may be chance comes with the size of a suite that could tell', () => {
    const [warning] = artefactOf(
      gateInput({ ...SOUND, 'gguf-q4_k_m': 18 }),
      'gguf-q4_k_m',
    ).warnings;
    expect(warning).toEqual({
      signal: 'suite-too-small',
      suite: 'support',
      message:
        '18 of 20 right and 20 of 20 right of adapter:a: a drop of 10 % (95 % interval -9.1 % to ' +
        '27.3 %), which may be chance. This suite shows drops of 34.5 % and more; to be sure of this ' +
        'one it should have about 86 prompts',
    });
  });

  it.each([14, 8, 1])('of 20 prompts to %i is one', (correct) => {
    const input = gateInput({ ...SOUND, 'gguf-q4_k_m': correct });
    expect(failuresOf(input, 'gguf-q4_k_m')).toContain('score-drop');
    expect(warningsOf(input, 'gguf-q4_k_m')).toEqual([]);
    expect(artefactOf(input).passed).toBe(true);
  });

  it('of 2 % is one on 1000 prompts', () => {
    const scores = { base: 100, 'adapter:a': 960, merged: 960, 'gguf-q8_0': 940 };
    const { failures } = artefactOf(gateInput(scores, { prompts: 1000 }), 'gguf-q8_0');
    expect(failures).toEqual([
      {
        signal: 'score-drop',
        suite: 'support',
        message:
          '940 of 1000 right and 960 of 1000 right of adapter:a: a drop of 2 % (95 % interval 1.1 % ' +
          'to 2.9 %), where max_drop allows 0.1 %',
      },
    ]);
  });

  it('is judged by prompts, not by sums: as many gained as lost is no drop', () => {
    const input = gateInput({ ...SOUND, 'adapter:a': 10, merged: 10 });
    const gguf = withAnswers('gguf-q8_0', [...Array(10).fill(false), ...Array(10).fill(true)]);
    const judged = artefactOf(
      {
        ...input,
        candidates: [...input.candidates, stepOf('gguf-q8_0')],
        results: [...input.results, gguf],
      },
      'gguf-q8_0',
    );
    expect(judged.failures).toEqual([]);
    const [suite] = judged.suites;
    expect(suite?.drop?.value).toBe(0);
    expect(suite?.drop?.low).toBeLessThan(-0.3);
  });

  it('is as visible where the artefact does better than the reference', () => {
    const scores = { ...SOUND, 'adapter:a': 10, merged: 10 };
    const visible = (correct: number) =>
      artefactOf(gateInput({ ...scores, 'gguf-q8_0': correct }), 'gguf-q8_0').suites[0]
        ?.smallestDropSeen;
    expect(visible(18)).toBe(visible(10));
  });

  it('may be as large as max_drop', () => {
    const scores = { ...SOUND, 'gguf-q2_k': 12 };
    expect(failuresOf(gateInput(scores, { suite: { dropMax: 0.4 } }), 'gguf-q2_k')).toEqual([]);
    expect(failuresOf(gateInput(scores), 'gguf-q2_k')).toEqual(['score-drop']);
  });

  it('is never forgiven for one more wrong answer', () => {
    const level = (correct: number) =>
      failuresOf(gateInput({ ...SOUND, 'gguf-q4_k_m': correct }), 'gguf-q4_k_m').length;
    const levels = Array.from({ length: 21 }, (_, correct) => level(20 - correct));
    expect(levels).toEqual(levels.toSorted((a, b) => a - b));
    expect([levels[0], levels[20]]).toEqual([0, 2]);
  });

  it('cannot be seen by a suite of three prompts, which is said of an artefact that passes', () => {
    const scores = { base: 0, 'adapter:a': 3, merged: 3 };
    const { passed, warnings, suites } = artefactOf(gateInput(scores, { prompts: 3 }));
    expect(passed).toBe(true);
    expect(signalsOf(warnings)).toEqual(['fine-tune-absent', 'suite-too-small']);
    expect(warnings[1]?.message).toContain('3 of 3 right of adapter:a: not even');
    expect(suites[0]).not.toHaveProperty('smallestDropSeen');
  });
});

describe('a score below the minimum', () => {
  it('fails by what was found, and at the minimum passes', () => {
    const scores = { ...SOUND, 'adapter:a': 19, merged: 19 };
    expect(failuresOf(gateInput(scores, { suite: { scoreMin: 0.95 } }))).toEqual([]);
    const { failures } = artefactOf(gateInput(scores, { suite: { scoreMin: 0.96 } }));
    expect(failures.map(({ signal, message }) => [signal, message])).toEqual([
      ['score-below-minimum', '19 of 20 right, 95 %, below min_score 0.96'],
    ]);
  });
});

describe('what the fine-tune taught', () => {
  it('is absent where an artefact is no better than the base', () => {
    const input = gateInput({ ...SOUND, base: 2, 'gguf-q2_k': 4 }, { suite: { dropMax: 0.9 } });
    expect(artefactOf(input, 'gguf-q2_k').failures).toEqual([
      {
        signal: 'fine-tune-absent',
        suite: 'support',
        message:
          '4 of 20 right, 2 of 20 right of the base alone and 20 of 20 right of adapter:a: it cannot be ' +
          'told from the base, so what the adapter taught is lost',
      },
    ]);
  });

  it('is there where the base is nearly as good and the artefact hardly worse', () => {
    const scores = { ...SOUND, base: 14, 'gguf-q8_0': 18 };
    expect(failuresOf(gateInput(scores), 'gguf-q8_0')).toEqual([]);
  });

  it.each([20, 17])('is not shown by a suite that the base answers too, %i of 20', (correct) => {
    const { passed, warnings } = artefactOf(gateInput({ ...SOUND, base: correct }));
    expect(passed).toBe(true);
    expect(warnings.map(({ signal, message }) => [signal, message])).toEqual([
      [
        'fine-tune-absent',
        `20 of 20 right of adapter:a and ${correct} of 20 right of the base alone: this suite does ` +
          'not show what the adapter taught. Is it the right suite, and the right adapter?',
      ],
    ]);
  });

  it('is not known where the base was not asked', () => {
    const { passed, warnings } = artefactOf(gateInput({ 'adapter:a': 20, merged: 20 }));
    expect(passed).toBe(true);
    expect(signalsOf(warnings)).toEqual(['not-evaluated']);
  });
});

describe('what was not evaluated', () => {
  const without = (...ids: string[]): GateInput => {
    const input = gateInput({ ...SOUND, 'gguf-q8_0': 20 });
    return { ...input, results: input.results.filter(({ candidate }) => !ids.includes(candidate)) };
  };

  it('never passes, and holds nothing else back', () => {
    const { artefacts } = decideGate(without('gguf-q8_0'));
    expect(artefacts.map(({ candidate, passed }) => [candidate, passed])).toEqual([
      ['merged', true],
      ['gguf-q8_0', false],
    ]);
    expect(artefacts[1]?.failures).toEqual([
      { signal: 'not-evaluated', suite: 'support', message: 'there is no result of it' },
    ]);
  });

  it('fails all where the reference has no result', () => {
    const { artefacts } = decideGate(without('adapter:a'));
    expect(artefacts.map(({ passed }) => passed)).toEqual([false, false]);
    expect(artefacts[0]?.failures[0]?.message).toContain('no result of adapter:a');
  });

  it('holds conversions back where it is merged', () => {
    expect(failuresOf(without('merged'))).toEqual(['not-evaluated']);
    expect(failuresOf(without('merged'), 'gguf-q8_0')).toEqual(['held-back-with-merged']);
    const input = gateInput({ base: 0, 'adapter:a': 20, 'gguf-q8_0': 20 });
    expect(decideGate(input).artefacts.map(({ candidate, passed }) => [candidate, passed])).toEqual(
      [
        ['merged', false],
        ['gguf-q8_0', false],
      ],
    );
  });

  it.each([
    ['other prompts', resultOf('merged', 19, 19), 'it answered 19 prompts and adapter:a 20'],
    ['no prompts', resultOf('merged', 0, 0), 'it answered 0 prompts and adapter:a 20'],
    [
      'another version of the suite',
      resultOf('merged', 20, 20, { suiteDigest: 'e'.repeat(64) }),
      'it and adapter:a were asked different versions of the suite',
    ],
  ])('includes an artefact that was asked %s', (_, result, message) => {
    const input = gateInput(SOUND);
    const results = input.results.map((each) => (each.candidate === 'merged' ? result : each));
    const [failure] = artefactOf({ ...input, results }).failures;
    expect(failure?.signal).toBe('not-evaluated');
    expect(failure?.message).toContain(message);
  });

  it('includes what would be published and is not among the candidates, or is asked nothing', () => {
    const input = { ...gateInput(SOUND), published: ['merged', 'awq-w4a16-g128'] };
    expect(failuresOf(input, 'awq-w4a16-g128')).toEqual(['not-evaluated']);
    const candidates = [...input.candidates, stepOf('awq-w4a16-g128', [])];
    expect(failuresOf({ ...input, candidates }, 'awq-w4a16-g128')).toEqual(['not-evaluated']);
  });

  it('leaves out what is only a reference', () => {
    const input = { ...gateInput({ ...SOUND, 'gguf-f16': 3 }), published: ['merged'] };
    expect(decideGate(input).artefacts.map(({ candidate }) => candidate)).toEqual(['merged']);
  });

  it('is a warning for a suite that was not meant for an artefact', () => {
    const input = gateInput(SOUND);
    const suites = [...input.evaluation.suites, suiteOf({ id: 'other' })];
    const { passed, warnings } = artefactOf({
      ...input,
      evaluation: { ...input.evaluation, suites },
    });
    expect(passed).toBe(true);
    expect(warnings).toEqual([
      { signal: 'not-evaluated', suite: 'other', message: 'this suite was not to be asked of it' },
    ]);
  });
});

describe('several adapters', () => {
  const input: GateInput = {
    evaluation: {
      suites: [suiteOf({ id: 'sums' }), suiteOf({ id: 'names', adapter: 'b' })],
      onFailure: 'wait',
    },
    candidates: ['base', 'adapter:a', 'adapter:b', 'merged'].map((id) =>
      stepOf(id, ['sums', 'names']),
    ),
    results: (
      [
        ['base', 'sums', 0],
        ['base', 'names', 0],
        ['adapter:a', 'sums', 20],
        ['adapter:b', 'names', 19],
        ['merged', 'sums', 19],
        ['merged', 'names', 7],
      ] as const
    ).map(([candidate, suite, correct]) => resultOf(candidate, correct, 20, { suite })),
    isMergeExact: false,
  };

  it('are each the reference of their own suites', () => {
    const { passed, failures, suites } = artefactOf(input);
    expect(passed).toBe(false);
    expect(failures.map(({ signal, suite }) => [signal, suite])).toEqual([['score-drop', 'names']]);
    expect(suites.map(({ suite, reference }) => [suite, reference])).toEqual([
      ['sums', 'adapter:a'],
      ['names', 'adapter:b'],
    ]);
  });
});

describe('a merged checkpoint that fails', () => {
  it('holds back all that is made of it, however well that does', () => {
    const input = gateInput({ ...SOUND, merged: 8, 'gguf-q8_0': 20, 'gguf-q2_k': 0 });
    const [merged, good, bad] = decideGate(input).artefacts;
    expect(signalsOf(merged!.failures)).toEqual(['score-drop']);
    expect(good?.failures).toEqual([
      {
        signal: 'held-back-with-merged',
        message: 'it is made of merged, which failed (score-drop)',
      },
    ]);
    expect(signalsOf(bad!.failures)).toEqual([
      'held-back-with-merged',
      'fine-tune-absent',
      'score-drop',
    ]);
  });
});

describe('a model that computes no numbers', () => {
  const notFinite = 'the logits are not finite';
  const broken = (id: string): GateInput => {
    const input = gateInput({ ...SOUND, 'gguf-q2_k': 20 });
    const results = input.results.map((each) =>
      each.candidate === id ? { ...each, answers: [], notFinite } : each,
    );
    return { ...input, results };
  };

  it('fails, and holds back nobody else', () => {
    const input = broken('gguf-q2_k');
    expect(artefactOf(input, 'gguf-q2_k')).toMatchObject({
      passed: false,
      failures: [{ signal: 'kl-too-large', suite: 'support', message: notFinite }],
    });
    expect(artefactOf(input).passed).toBe(true);
  });

  it('is nothing to be compared with', () => {
    const [failure] = artefactOf(broken('adapter:a')).failures;
    expect(failure?.signal).toBe('not-evaluated');
    expect(failure?.message).toContain('adapter:a, with which it would be compared, computes no');
  });
});
