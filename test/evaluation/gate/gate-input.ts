import type { RecipeSuite } from '../../../config/release-quality.ts';
import type { CandidateStep } from '../../../evaluation/candidate.ts';
import type { GateInput } from '../../../evaluation/gate/decide-gate.ts';
import type { DistributionComparison, SuiteResult } from '../../../evaluation/results.ts';

/** What the gate is asked, written as scores: `{ base: 0, 'adapter:a': 20, merged: 20 }`. */

export function suiteOf(settings: Partial<RecipeSuite> = {}): RecipeSuite {
  return {
    id: 'support',
    data: '/suites/support.jsonl',
    adapter: 'a',
    matcher: 'contains',
    newTokensMax: 64,
    dropMax: 0.001,
    ...settings,
  };
}

export function stepOf(id: string, suites: readonly string[] = ['support']): CandidateStep {
  const kind = id.startsWith('adapter:')
    ? 'adapter'
    : id === 'base' || id === 'merged'
      ? id
      : id.startsWith('awq')
        ? 'awq'
        : 'gguf';
  return { id, kind, runner: kind === 'gguf' ? 'llama.cpp' : 'transformers', suites };
}

/** A result whose first prompts are right. */
export function resultOf(
  candidate: string,
  correct: number,
  prompts = 20,
  settings: Partial<SuiteResult> = {},
): SuiteResult {
  return withAnswers(
    candidate,
    Array.from({ length: prompts }, (_, index) => index < correct),
    settings,
  );
}

export function withAnswers(
  candidate: string,
  correct: readonly boolean[],
  settings: Partial<SuiteResult> = {},
): SuiteResult {
  return {
    candidate,
    suite: 'support',
    suiteDigest: 'd'.repeat(64),
    runner: 'transformers 5.17.0',
    artefactDigest: 'a'.repeat(64),
    answers: correct.map((isCorrect, index) => ({ index, text: 'x', correct: isCorrect })),
    ...settings,
  };
}

export function comparisonWith(
  candidate: string,
  klMean: number,
  settings: Partial<DistributionComparison> = {},
): DistributionComparison {
  return {
    with: candidate,
    positions: 200,
    klMean,
    klMax: klMean * 10,
    logitDifferenceMax: 1,
    ofLogProbabilities: false,
    top1Agreement: 1,
    tokenizedDifferently: [],
    ...settings,
  };
}

/** One suite of 20 prompts, or of so many as said; merged is compared with its reference. */
export function gateInput(
  scores: Readonly<Record<string, number>>,
  { prompts = 20, suite = {} }: { prompts?: number; suite?: Partial<RecipeSuite> } = {},
): GateInput {
  return {
    evaluation: { suites: [suiteOf(suite)], onFailure: 'wait' },
    candidates: Object.keys(scores).map((id) => stepOf(id)),
    results: Object.entries(scores).map(([id, correct]) =>
      resultOf(id, correct, prompts, {
        ...(id === 'merged' ? { comparison: comparisonWith('adapter:a', 0.0002) } : {}),
      }),
    ),
  };
}
