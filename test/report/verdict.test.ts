import { describe, expect, it } from 'vitest';
import type { GateSignalName } from '../../evaluation/gate-decision.ts';
import { type ReportFacts, reportFacts } from '../../report/report-facts.ts';
import { releaseVerdict } from '../../report/verdict.ts';
import { sampleInput } from './html/sample-facts.ts';

interface Case {
  /** For each artefact the signals that it failed by. */
  readonly failed: Readonly<Record<string, readonly GateSignalName[]>>;
  readonly onFailure?: 'wait' | 'stop';
  readonly approval?: ReportFacts['approval'];
  readonly approvalRequired?: boolean;
}

function verdictOf({ failed, onFailure = 'wait', approval, approvalRequired }: Case) {
  const { release, evaluation } = sampleInput();
  const artefacts = Object.entries(failed).map(([candidate, signals]) => ({
    ...{ candidate, passed: signals.length === 0, warnings: [], suites: [] },
    failures: signals.map((signal) => ({ signal, message: 'because' })),
  }));
  const gate = { format: 'weldline.gate' as const, artefacts };
  const verdict = releaseVerdict(
    reportFacts({
      ...{ release, approval },
      approvalRequired: approvalRequired ?? false,
      evaluation: { ...evaluation!, onFailure, gate },
    }),
  );
  const text = verdict.sentences.map((each) => `${each.text} ${each.command ?? ''}`).join(' ');
  return { ...verdict, text, each: verdict.artefacts.map((artefact) => artefact.verdict) };
}

describe('the verdict', () => {
  it('is to ship what passed', () => {
    const verdict = verdictOf({ failed: { merged: [], 'gguf-q8_0': [] } });
    expect(verdict).toMatchObject({ verdict: 'ship', headline: 'Ship', each: ['ship', 'ship'] });
    expect(verdict.text.trim()).toBe('2 of 2 artefacts passed the gate on 2 suites.');
  });

  it('holds what failed, tells it from what passed, and says how to overrule it', () => {
    const verdict = verdictOf({ failed: { merged: [], 'gguf-q2_k': ['score-drop'] } });
    expect(verdict).toMatchObject({ verdict: 'mixed', each: ['ship', 'hold'] });
    expect(verdict.headline).toBe('Ship 1 of 2 artefacts, do not ship 1');
    expect(verdict.text).toContain('weldline approve release-two-tasks --override "reason"');
    const stopped = verdictOf({ failed: { merged: ['score-drop'] }, onFailure: 'stop' });
    expect(stopped).toMatchObject({ verdict: 'hold', headline: 'Do not ship' });
    expect(stopped.text).toContain('the recipe stops there');
    expect(stopped.text).not.toContain('--override');
  });

  it('is a person’s where nothing is known, and never to ship', () => {
    const verdict = verdictOf({ failed: { merged: ['not-evaluated'], 'gguf-q8_0': [] } });
    expect(verdict.each).toEqual(['undecided', 'ship']);
    expect(verdict.headline).toBe('Ship 1 of 2 artefacts, a person must decide on 1');
    const both = verdictOf({ failed: { merged: ['not-evaluated', 'score-drop'] } });
    expect(both.each).toEqual(['hold']);
  });

  it('knows of artefacts that the gate does not know', () => {
    const { release, conversions = [], evaluation } = sampleInput();
    const gate = { format: 'weldline.gate' as const, artefacts: [] };
    const facts = reportFacts({
      ...{ release, conversions: conversions.slice(0, 2) },
      evaluation: { ...evaluation!, gate },
    });
    // The first is only there to make others of.
    expect(releaseVerdict(facts).artefacts).toEqual([
      { candidate: 'merged', verdict: 'undecided' },
      { candidate: 'gguf-q8_0', verdict: 'undecided' },
    ]);
    expect(releaseVerdict(facts).sentences[1]?.text).toBe(
      '2 artefacts went past the gate unjudged.',
    );
  });

  it('says who overruled the gate and why, and only that what failed was overruled', () => {
    const approval = { by: 'Ada', override: 'the suite is wrong' };
    const verdict = verdictOf({ failed: { merged: [], 'gguf-q2_k': ['score-drop'] }, approval });
    expect(verdict.each).toEqual(['ship', 'overridden']);
    expect(verdict.headline).toBe('Ship 2 of 2 artefacts, 1 by override');
    expect(verdict.text).toContain('Approved by Ada, over the gate: “the suite is wrong”.');
    const plain = verdictOf({ failed: { merged: ['score-drop'] }, approval: { by: 'Ada' } });
    expect(plain.each).toEqual(['hold']);
  });

  it('asks for the yes that the recipe asks for, until it is there', () => {
    const waiting = verdictOf({ failed: { merged: [] }, approvalRequired: true });
    expect(waiting.text).toMatch(/asks for a person’s yes: weldline approve release-two-tasks$/);
    const given = { failed: { merged: [] }, approvalRequired: true, approval: { by: 'Ada' } };
    expect(verdictOf(given).text).toMatch(/Approved by Ada\. $/);
  });
});
