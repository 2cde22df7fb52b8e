import { describe, expect, it } from 'vitest';
import type { GateDecision } from '../../evaluation/gate-decision.ts';
import type { SuiteResult } from '../../evaluation/results.ts';
import { changedAnswers } from '../../report/changed-answers.ts';

type Answer = readonly [text: string, correct: boolean];

function result(candidate: string, answers: readonly Answer[], suite = 's'): SuiteResult {
  return {
    ...{ candidate, suite, suiteDigest: '', runner: '', artefactDigest: '' },
    answers: answers.map(([text, correct], index) => ({ index, text, correct })),
  };
}

function gate(candidate: string, reference: string, suites = ['s']): GateDecision {
  const decisions = suites.map((suite) => ({ suite, reference, prompts: 1 }));
  return {
    format: 'weldline.gate',
    artefacts: [{ candidate, passed: true, failures: [], warnings: [], suites: decisions }],
  };
}

const RIGHT: Answer = ['right', true];
const WRONG: Answer = ['wrong', false];

describe('answers that changed', () => {
  it('are counted by kind, and shown with what was lost first', () => {
    const before = result('ref', [RIGHT, WRONG, RIGHT, ['a', true], WRONG]);
    const after = result('new', [RIGHT, ['right', true], ['no', false], ['b', true], WRONG]);
    const [changed, ...more] = changedAnswers(gate('new', 'ref'), [after, before], []);
    expect(more).toEqual([]);
    expect(changed).toMatchObject({ candidate: 'new', reference: 'ref', suite: 's' });
    expect(changed).toMatchObject({ lost: 1, gained: 1, reworded: 1, same: 2 });
    expect(changed?.examples).toEqual([
      { index: 2, change: 'lost', before: 'right', after: 'no' },
      { index: 1, change: 'gained', before: 'wrong', after: 'right' },
      { index: 3, change: 'reworded', before: 'a', after: 'b' },
    ]);
  });

  it('come with their prompts where these are at hand', () => {
    const exercise = {
      index: 0,
      prompt: 'p',
      addSpecialTokens: true,
      matcher: 'contains' as const,
    };
    const suite = { id: 's', digest: '', newTokensMax: 1 };
    const [changed] = changedAnswers(
      gate('new', 'ref'),
      [result('ref', [RIGHT]), result('new', [WRONG])],
      [{ ...suite, exercises: [{ ...exercise, expected: ['x', 'y'] }] }],
    );
    expect(changed?.examples).toMatchObject([{ prompt: 'p', expected: ['x', 'y'] }]);
  });

  it('are a few, and short, however many there are', () => {
    const suites = ['s', 't', 'u', 'v'];
    const results = suites.flatMap((suite) => [
      result('ref', Array<Answer>(50).fill(RIGHT), suite),
      result('new', Array<Answer>(50).fill(['\u{1f600}'.repeat(9000), false]), suite),
    ]);
    const changed = changedAnswers(gate('new', 'ref', suites), results, []);
    expect(changed.map(({ examples }) => examples.length)).toEqual([5, 5, 2, 0]);
    expect(changed.map(({ lost }) => lost)).toEqual([50, 50, 50, 50]);
    const after = changed[0]?.examples[0]?.after ?? '';
    expect([...after]).toHaveLength(600);
    expect(after.endsWith('\u{1f600}…')).toBe(true);
  });

  it('are none of what was not run', () => {
    expect(changedAnswers(gate('new', 'ref'), [result('new', [RIGHT])], [])).toEqual([]);
    expect(changedAnswers(gate('new', 'ref'), [result('ref', []), result('new', [])], [])).toEqual(
      [],
    );
  });
});
