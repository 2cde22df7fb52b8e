import type { ConversionStep } from '../conversion/conversion-step.ts';
import { describeSignal, describeWarnings } from '../evaluation/gate/describe-decision.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import { shownLines } from './history-limits.ts';
import type { Judged, QualityPlan } from './quality-types.ts';

/** A history and every look at the status hold these lines; the report has all of them. */
const SIGNALS_SHOWN_MAX = 5;

type Planned = Pick<QualityPlan, 'conversions'>;

/** The parts that would be published and are models. */
export function judgedParts({ conversions }: Planned): readonly string[] {
  const models = conversions.filter((step) => (step.kind === 'gguf' ? step.wanted : isModel(step)));
  return ['merged', ...models.map(({ id }) => id)];
}

function isModel({ kind }: ConversionStep): boolean {
  return kind !== 'gguf-adapter';
}

/** What is published by the decision, and why the rest is not. Each part is in one of the lists. */
export function judgedOutcome(
  { artefacts }: GateDecision,
  { conversions }: Planned,
): Pick<Judged, 'passed' | 'failed' | 'warnings'> {
  const passed = artefacts.filter((each) => each.passed).map(({ candidate }) => candidate);
  const failed = artefacts.flatMap(({ candidate, passed: isFine, failures }) =>
    isFine
      ? []
      : [
          {
            id: candidate,
            message: shownLines(failures.map(describeSignal), SIGNALS_SHOWN_MAX).join('\n'),
          },
        ],
  );
  // An adapter is what it was, in another format: it goes where the merge goes.
  const adapters = conversions.filter((step) => !isModel(step)).map(({ id }) => id);
  const isMergedFine = passed.includes('merged');
  const message = 'held-back-with-merged: it is published where merged is, which failed';
  return {
    passed: [...passed, ...(isMergedFine ? adapters : [])],
    failed: [...failed, ...(isMergedFine ? [] : adapters.map((id) => ({ id, message })))],
    warnings: shownLines(describeWarnings(artefacts)),
  };
}
