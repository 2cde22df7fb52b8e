import { PERPLEXITY_RISE_MAX_DEFAULT } from '../../config/evaluate-schema.ts';
import { referenceFor } from '../candidate.ts';
import type { GateSignal, GateSignalName, SuiteDecision } from '../gate-decision.ts';
import { figure, percent } from './describe-figures.ts';
import { referenceOf, type SuiteEvidence } from './suite-evidence.ts';
import type { Verdict } from './verdict.ts';

/**
 * Mean KL divergence in nats per token that rounding the merged weights may cause, in float32
 * arithmetic. Correct merges into bfloat16 have 7e-7 (examples/tiny) and 2.3e-4 (SmolLM2-135M). The
 * delta of one layer of 30 left out has 2.1e-3, 0.09 and 0.17 (SmolLM2), of one of 3 0.4 and more (tiny);
 * twice the scale 0.5 (SmolLM2) and 2.7 (tiny), another adapter 5.1 and 6.5. A single left-out matrix may
 * stay below (3.7e-4): the verification of the merge works rows out again for that.
 */
export const KL_OF_MERGED_MAX = 0.001;

/** The same in bfloat16 arithmetic, which alone is 2.4e-3 and 3.2e-3 away from float32 (SmolLM2). */
export const KL_OF_MERGED_MAX_BFLOAT16 = 0.01;

/** By what share the perplexity of merged weights may differ from the adapter's on its base. */
const PERPLEXITY_OF_MERGED_MAX = 0.01;

type Divergence = Pick<SuiteDecision, 'kl' | 'klMax'>;

/**
 * Next-token distributions and perplexity.
 *
 * @param isMergeExact whether merged is to compute what the adapter on its base computes; scores may
 *   be the same where the merge is not
 */
export function judgeDistributions(
  evidence: SuiteEvidence,
  isMergeExact: boolean,
): Verdict & { readonly divergence: Divergence } {
  const isExact = isMergeExact && evidence.step.kind === 'merged';
  const { divergence, ...ofDivergence } = judgeDivergence(evidence, isExact);
  const verdicts = [ofDivergence, judgeTokens(evidence), judgePerplexity(evidence, isExact)];
  return {
    failures: verdicts.flatMap(({ failures }) => failures),
    warnings: verdicts.flatMap(({ warnings }) => warnings),
    divergence,
  };
}

function judgeDivergence(
  evidence: SuiteEvidence,
  isExact: boolean,
): Verdict & { readonly divergence: Divergence } {
  const { suite, own, reference } = evidence;
  const { comparison } = own;
  const klLimit = suite.klMax;
  if (comparison === undefined || comparison.positions === 0) {
    const divergence = klLimit === undefined ? {} : { klMax: klLimit };
    return { ...notCompared(evidence, isExact), divergence };
  }
  const kl = comparison.klMean;
  const isBeside = isExact && comparison.with === reference.candidate;
  const rounding = roundingOf(evidence);
  const limit = isBeside ? Math.min(klLimit ?? Infinity, rounding) : klLimit;
  const failures: GateSignal[] = [];
  const found = `the mean KL divergence from ${comparison.with} is ${figure(kl)} nats per token`;
  // What is not a number, of a model that computes none, is above every limit.
  if (klLimit !== undefined ? !(kl <= klLimit) : !Number.isFinite(kl)) {
    const allowed = klLimit === undefined ? '' : `, above max_kl ${figure(klLimit)}`;
    failures.push(...signalled('kl-too-large', suite.id, `${found}${allowed}`));
  }
  if (isBeside && !(kl <= rounding)) {
    const message =
      `${found}, where rounding explains ${rounding}: it does not compute what ` +
      'the adapter on its base computes';
    failures.push(...signalled('distributions-differ', suite.id, message));
  }
  const divergence = { kl, ...(limit === undefined ? {} : { klMax: limit }) };
  return { failures, warnings: [], divergence };
}

/** What rounding explains, by the arithmetic that runners name in their identity. */
function roundingOf({ own, reference }: SuiteEvidence): number {
  const isCoarse = [own, reference].some(({ runner }) => runner.includes('bfloat16'));
  return isCoarse ? KL_OF_MERGED_MAX_BFLOAT16 : KL_OF_MERGED_MAX;
}

/**
 * What the plan compares and nobody did is missing. What the plan compares with nothing (a 16-bit
 * GGUF, since others are compared with it; what an endpoint runs) is judged by the rest.
 */
function notCompared({ suite, step }: SuiteEvidence, isExact: boolean): Verdict {
  const beside = referenceFor(step, suite.id);
  if (suite.klMax !== undefined && beside !== undefined) {
    const message = `max_kl ${figure(suite.klMax)} asks for its divergence from ${beside}, which was not measured`;
    return { failures: signalled('not-evaluated', suite.id, message), warnings: [] };
  }
  if (suite.data === undefined || (suite.klMax === undefined && !isExact))
    return { failures: [], warnings: [] };
  const message =
    suite.klMax === undefined
      ? "its distributions were compared with no other's: a merge that is wrong and scores well would " +
        'not be noticed'
      : `its distributions are compared with no other's (${step.runner}), so max_kl says nothing of it`;
  return { failures: [], warnings: signalled('not-evaluated', suite.id, message) };
}

/** A model that sees other tokens than it was trained on. */
function judgeTokens({ suite, own, reference }: SuiteEvidence): Verdict {
  const different = own.comparison?.tokenizedDifferently.length ?? 0;
  const ofText = [own.perplexity?.tokens, reference.perplexity?.tokens];
  const failures: GateSignal[] = [];
  if (different > 0) {
    const texts = different === 1 ? '1 text' : `${different} texts`;
    const message = `${texts} of the suite become other tokens than under ${own.comparison?.with}`;
    failures.push(...signalled('tokenized-differently', suite.id, message));
  } else if (isTextCutDifferently(ofText)) {
    const message = `the text of the suite is ${ofText[0]} tokens, and ${ofText[1]} under ${referenceOf(suite)}`;
    failures.push(...signalled('tokenized-differently', suite.id, message));
  }
  return { failures, warnings: [] };
}

function isTextCutDifferently([own, reference]: readonly (number | undefined)[]): boolean {
  return own !== undefined && reference !== undefined && own !== reference;
}

function judgePerplexity(
  { suite, step, own, reference }: SuiteEvidence,
  isExact: boolean,
): Verdict {
  if (suite.text === undefined) return { failures: [], warnings: [] };
  if (own.perplexity === undefined || reference.perplexity === undefined) {
    const missing =
      own.perplexity === undefined ? 'its perplexity' : `that of ${referenceOf(suite)}`;
    const message = `${missing} on the text was not measured (${step.runner})`;
    return { failures: signalled('not-evaluated', suite.id, message), warnings: [] };
  }
  // Of other tokens it is another figure, which says nothing.
  if (own.perplexity.tokens !== reference.perplexity.tokens) return { failures: [], warnings: [] };
  const rise = own.perplexity.value / reference.perplexity.value - 1;
  const limit = suite.perplexityRiseMax ?? PERPLEXITY_RISE_MAX_DEFAULT;
  const found =
    `the perplexity is ${figure(own.perplexity.value)}, and ${figure(reference.perplexity.value)} ` +
    `of ${referenceOf(suite)}`;
  const failures: GateSignal[] = [];
  if (!(rise <= limit)) {
    const message = `${found}, ${percent(rise)} more; max_perplexity_rise allows ${percent(limit)}`;
    failures.push(...signalled('perplexity-rise', suite.id, message));
  }
  if (isExact && !(Math.abs(rise) <= PERPLEXITY_OF_MERGED_MAX)) {
    const message =
      `${found}, where rounding explains ${percent(PERPLEXITY_OF_MERGED_MAX)}: it does not compute ` +
      'what the adapter on its base computes';
    failures.push(...signalled('distributions-differ', suite.id, message));
  }
  return { failures, warnings: [] };
}

function signalled(signal: GateSignalName, suite: string, message: string): GateSignal[] {
  return [{ signal, suite, message }];
}
