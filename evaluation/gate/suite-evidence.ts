import type { RecipeSuite } from '../../config/release-quality.ts';
import type { CandidateStep } from '../candidate.ts';
import type { SuiteResult } from '../results.ts';
import { type PairedOutcomes, pairOutcomes } from './paired-outcomes.ts';

/** What is known of one artefact on one suite. */
export interface SuiteEvidence {
  readonly suite: RecipeSuite;
  readonly step: CandidateStep;
  readonly own: SuiteResult;
  /** Of the adapter on its base. */
  readonly reference: SuiteResult;
  /** Of the base alone, where it was asked. */
  readonly base?: SuiteResult;
  /** Absent for a suite of text only. */
  readonly outcomes?: PairedOutcomes;
}

/**
 * Finds what an artefact is judged by.
 *
 * @returns a sentence where it cannot be judged: something was not measured, or not on the same prompts
 */
export function findEvidence(
  suite: RecipeSuite,
  step: CandidateStep,
  results: readonly SuiteResult[],
): SuiteEvidence | string {
  const ofSuite = results.filter((result) => result.suite === suite.id);
  const resultOf = (candidate: string) => ofSuite.find((result) => result.candidate === candidate);
  const referenceId = referenceOf(suite);
  const own = resultOf(step.id);
  const reference = resultOf(referenceId);
  const base = resultOf('base');
  if (own === undefined) return 'there is no result of it';
  if (reference === undefined)
    return `there is no result of ${referenceId}, with which it would be compared`;
  if (reference.notFinite !== undefined)
    return `${referenceId}, with which it would be compared, computes no numbers`;
  const other = [reference, ...(base === undefined ? [] : [base])].find(
    ({ suiteDigest }) => suiteDigest !== own.suiteDigest,
  );
  if (other !== undefined)
    return `it and ${other.candidate} were asked different versions of the suite; evaluate again`;
  const evidence = { suite, step, own, reference, ...(base === undefined ? {} : { base }) };
  if (suite.data === undefined) return evidence;
  const outcomes = pairOutcomes(reference.answers, own.answers);
  if (outcomes === undefined || outcomes.prompts === 0)
    return (
      `it answered ${own.answers.length} prompts and ${referenceId} ${reference.answers.length}, ` +
      'not the same ones; evaluate again'
    );
  return { ...evidence, outcomes };
}

/** The candidate that a suite compares with. */
export function referenceOf(suite: RecipeSuite): string {
  return `adapter:${suite.adapter}`;
}
