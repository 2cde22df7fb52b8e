import { describe, expect, it } from 'vitest';
import { decideGate } from '../../../evaluation/gate/decide-gate.ts';
import { describeDecision, describeSuite } from '../../../evaluation/gate/describe-decision.ts';
import { gateInput } from './gate-input.ts';

describe('describeDecision', () => {
  it('says what became of each artefact, why, and each warning once', () => {
    const input = gateInput({
      base: 20,
      'adapter:a': 20,
      merged: 20,
      'gguf-q8_0': 19,
      'gguf-q2_k': 8,
    });
    expect(describeDecision(decideGate(input))).toEqual([
      'merged passed',
      'gguf-q8_0 passed',
      'gguf-q2_k failed',
      '  score-drop (suite support): 8 of 20 right and 20 of 20 right of adapter:a: a drop of 60 % ' +
        '(95 % interval 27.3 % to 77.3 %), where max_drop allows 0.1 %',
      'warning, merged, gguf-q8_0, gguf-q2_k: fine-tune-absent (suite support): 20 of 20 right of ' +
        'adapter:a and 20 of 20 right of the base alone: this suite does not show what the adapter ' +
        'taught. Is it the right suite, and the right adapter?',
      'warning, gguf-q8_0: suite-too-small (suite support): 19 of 20 right and 20 of 20 right of ' +
        'adapter:a: a drop of 5 % (95 % interval -9.1 % to 18.2 %), which may be chance. This suite ' +
        'shows drops of 34.5 % and more; to be sure of this one it should have about 180 prompts',
    ]);
  });
});

describe('describeSuite', () => {
  const suiteOf = (scores: Record<string, number>, prompts = 20) =>
    decideGate(gateInput(scores, { prompts })).artefacts[0]!.suites[0]!;

  it('says what was found, and what could have been', () => {
    expect(describeSuite(suiteOf({ base: 1, 'adapter:a': 20, merged: 19 }))).toBe(
      'support: 95 % (95 % interval 76.4 % to 99.1 %) of 20 prompts right; adapter:a 100 %; base 5 %; ' +
        'drop 5 % (95 % interval -9.1 % to 18.2 %), in a suite that shows drops of 34.5 % and more; ' +
        'mean KL divergence 0.0002 nats per token',
    );
    expect(describeSuite(suiteOf({ base: 0, 'adapter:a': 3, merged: 3 }, 3))).toContain(
      'in a suite too small to show any',
    );
    expect(describeSuite({ suite: 'text', reference: 'adapter:a', prompts: 0 })).toBe(
      'text: nothing to score',
    );
  });
});
