import type { GateDecision } from '../evaluation/gate-decision.ts';
import type { SuiteResult } from '../evaluation/results.ts';

/** One figure of an evaluation, as registries and cards take it. */
export interface CandidateMetric {
  readonly suite: string;
  readonly metric: 'accuracy' | 'perplexity' | 'kl_divergence';
  readonly value: number;
  /** Of a 95 % interval. */
  readonly low?: number;
  readonly high?: number;
  /** What it is compared with, where it is a comparison. */
  readonly reference?: string;
  /** Which program ran the model, and its version; absent where it is not known. */
  readonly runner?: string;
}

type Result = Pick<SuiteResult, 'candidate' | 'suite' | 'runner' | 'perplexity'>;

/**
 * What was measured of an artefact, suite by suite in the order of the gate. Figures that are no
 * numbers are left out.
 * @param candidate `merged`, or the id of a conversion
 */
export function candidateMetrics(
  candidate: string,
  gate: GateDecision | undefined,
  results: readonly Result[] = [],
): readonly CandidateMetric[] {
  const suites = gate?.artefacts.find((each) => each.candidate === candidate)?.suites ?? [];
  return suites.flatMap(({ suite, reference, score, kl }) => {
    const result = results.find((each) => each.candidate === candidate && each.suite === suite);
    const common = { suite, ...(result && { runner: result.runner }) };
    const all: CandidateMetric[] = [
      ...(score ? [{ ...common, metric: 'accuracy' as const, ...score }] : []),
      ...(result?.perplexity
        ? [{ ...common, metric: 'perplexity' as const, value: result.perplexity.value }]
        : []),
      ...(kl === undefined
        ? []
        : [{ ...common, metric: 'kl_divergence' as const, value: kl, reference }]),
    ];
    return all.filter(({ value }) => Number.isFinite(value));
  });
}
