import type { RecipeEvaluation, RecipeSuite } from '../../config/release-quality.ts';
import type { CandidateStep } from '../candidate.ts';
import type {
  ArtefactDecision,
  GateDecision,
  GateSignal,
  SuiteDecision,
} from '../gate-decision.ts';
import type { SuiteResult } from '../results.ts';
import { judgeDistributions } from './judge-distributions.ts';
import { judgeScores } from './judge-scores.ts';
import { findEvidence, referenceOf } from './suite-evidence.ts';
import { bySeriousness, type Verdict } from './verdict.ts';

export interface GateInput {
  readonly evaluation: RecipeEvaluation;
  /** All that was to be evaluated, in the order of the plan. */
  readonly candidates: readonly CandidateStep[];
  /** What came out, in any order. */
  readonly results: readonly SuiteResult[];
  /** Ids of what would be published; where absent, all candidates but the base and adapters. */
  readonly published?: readonly string[];
  /** See {@link isMergeExact}; true where absent, which is the stricter. */
  readonly isMergeExact?: boolean;
}

/**
 * Decides of each artefact whether it is as good as the adapter on its base.
 *
 * Pure: the same results, in whatever order, give the same bytes. An artefact passes only if it was
 * evaluated, and `merged` is always judged, because conversions are made of it.
 */
export function decideGate(input: GateInput): GateDecision {
  const { candidates } = input;
  const ids = input.published ?? candidates.filter(isArtefact).map(({ id }) => id);
  const merged = decideArtefact('merged', input);
  const others = [...new Set(ids)].filter((id) => id !== 'merged');
  const conversions = others.map((id) => holdBack(decideArtefact(id, input), merged));
  return { format: 'weldline.gate', artefacts: [merged, ...conversions] };
}

function isArtefact({ kind }: CandidateStep): boolean {
  return kind !== 'base' && kind !== 'adapter';
}

function decideArtefact(id: string, input: GateInput): ArtefactDecision {
  const { evaluation, candidates, results, isMergeExact = true } = input;
  const step = candidates.find((candidate) => candidate.id === id);
  const judged = evaluation.suites.map((suite) => judgeSuite(suite, step, results, isMergeExact));
  const failures = judged.flatMap((each) => each.failures);
  if (step === undefined || !evaluation.suites.some(({ id: suite }) => step.suites.includes(suite)))
    failures.push({ signal: 'not-evaluated', message: 'no suite was to be asked of it' });
  return {
    candidate: id,
    passed: failures.length === 0,
    failures: bySeriousness(failures),
    warnings: bySeriousness(judged.flatMap(({ warnings }) => warnings)),
    suites: judged.flatMap(({ decision }) => (decision === undefined ? [] : [decision])),
  };
}

function judgeSuite(
  suite: RecipeSuite,
  step: CandidateStep | undefined,
  results: readonly SuiteResult[],
  isMergeExact: boolean,
): Verdict & { readonly decision?: SuiteDecision } {
  if (step === undefined) return { failures: [], warnings: [] };
  if (!step.suites.includes(suite.id)) {
    const message = 'this suite was not to be asked of it';
    return { failures: [], warnings: [{ signal: 'not-evaluated', suite: suite.id, message }] };
  }
  const notFinite = results.find(
    (result) => result.suite === suite.id && result.candidate === step.id,
  )?.notFinite;
  if (notFinite !== undefined) {
    const failure: GateSignal = { signal: 'kl-too-large', suite: suite.id, message: notFinite };
    return { failures: [failure], warnings: [] };
  }
  const evidence = findEvidence(suite, step, results);
  if (typeof evidence === 'string') {
    const failure: GateSignal = { signal: 'not-evaluated', suite: suite.id, message: evidence };
    return { failures: [failure], warnings: [] };
  }
  const { scores, ...ofScores } = judgeScores(evidence);
  const { divergence, ...ofDistributions } = judgeDistributions(evidence, isMergeExact);
  return {
    failures: [...ofScores.failures, ...ofDistributions.failures],
    warnings: [...ofScores.warnings, ...ofDistributions.warnings],
    decision: {
      suite: suite.id,
      reference: referenceOf(suite),
      prompts: evidence.outcomes?.prompts ?? 0,
      ...scores,
      ...divergence,
    },
  };
}

/** What is made of a broken checkpoint is broken, however well it scores. */
function holdBack(artefact: ArtefactDecision, merged: ArtefactDecision): ArtefactDecision {
  if (merged.passed) return artefact;
  const signals = [...new Set(merged.failures.map(({ signal }) => signal))].join(', ');
  const message = `it is made of merged, which failed (${signals})`;
  return {
    ...artefact,
    passed: false,
    failures: [{ signal: 'held-back-with-merged', message }, ...artefact.failures],
  };
}
