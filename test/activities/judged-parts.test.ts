import { expect, test } from 'vitest';
import { judgedOutcome, judgedParts } from '../../activities/judged-parts.ts';
import type { ConversionStep } from '../../conversion/conversion-step.ts';
import type { ArtefactDecision, GateDecision } from '../../evaluation/gate-decision.ts';

const conversions: readonly ConversionStep[] = [
  { kind: 'gguf', id: 'gguf-f16', type: 'F16', wanted: false },
  { kind: 'gguf', id: 'gguf-q8_0', type: 'Q8_0', after: 'gguf-f16', wanted: true },
  { kind: 'gguf-adapter', id: 'gguf-adapter-tone', adapter: 'tone' },
];

function decisionWith(failing: readonly string[]): GateDecision {
  const artefacts = judgedParts({ conversions }).map((candidate) => {
    const isFine = !failing.includes(candidate);
    const failure = { signal: 'score-drop', suite: 'tone', message: 'worse' } as const;
    const failures = isFine ? [] : [failure];
    return { candidate, passed: isFine, failures, warnings: [], suites: [] };
  });
  return { format: 'weldline.gate', artefacts };
}

test('models are judged that would be published, and no adapter', () => {
  expect(judgedParts({ conversions })).toEqual(['merged', 'gguf-q8_0']);
});

test('adapters are published with the merged checkpoint', () => {
  const { passed, failed } = judgedOutcome(decisionWith(['gguf-q8_0']), { conversions });
  expect(passed).toEqual(['merged', 'gguf-adapter-tone']);
  expect(failed).toEqual([{ id: 'gguf-q8_0', message: 'score-drop (suite tone): worse' }]);
});

test('where it is refused they are too, so that an override publishes them', () => {
  const { passed, failed } = judgedOutcome(decisionWith(['merged', 'gguf-q8_0']), { conversions });
  expect(passed).toEqual([]);
  expect(failed.map(({ id }) => id)).toEqual(['merged', 'gguf-q8_0', 'gguf-adapter-tone']);
  expect(failed[2]?.message).toContain('held-back-with-merged');
});

test('what is said of many suites is cut, since a history holds it', () => {
  const signals = Array.from({ length: 80 }, (_, index) => ({
    ...{ signal: 'score-drop', suite: `suite-${index}`, message: 'worse' },
  })) as ArtefactDecision['failures'];
  const [merged] = decisionWith(['merged']).artefacts;
  const artefacts = [{ ...merged!, failures: signals, warnings: signals }];
  const { failed, warnings } = judgedOutcome(
    { format: 'weldline.gate', artefacts },
    { conversions: [] },
  );
  expect(failed[0]?.message).toMatch(/suite-4\): worse\nAnd 75 more: see the report\.$/);
  expect(warnings).toHaveLength(51);
  expect(warnings.at(-1)).toBe('And 30 more: see the report.');
});
