import { WeldlineError } from '../engine/errors.ts';
import { openDistributions } from './distribution-store.ts';
import type { DistributionComparison } from './results.ts';
import type { Distributions } from './runner.ts';

/** Sums over positions. */
interface Tally {
  positions: number;
  kl: number;
  klMax: number;
  differenceMax: number;
  agreed: number;
}

/**
 * Compares a model's next-token distributions with those that were kept of its reference, position
 * by position: KL(reference ‖ candidate) = Σ p (ln p − ln q) over the whole vocabulary, in float64.
 *
 * Texts that the two tokenise differently are listed and left out. Where that is all of them,
 * `positions` is 0 and the figures, all 0, say nothing. Texts that were not kept are not asked for.
 *
 * @param candidate one at a time; no more is asked for once all kept texts are compared
 * @throws WeldlineError `evaluate.not-comparable` (vocabularies of different sizes, or not the same
 *   positions), `evaluate.not-finite` (values that are no numbers), `evaluate.distributions-damaged`
 */
export async function compareDistributions(
  referenceDirectory: string,
  candidate: AsyncIterable<Distributions>,
): Promise<Omit<DistributionComparison, 'with'>> {
  const reference = await openDistributions(referenceDirectory);
  const tally: Tally = { positions: 0, kl: 0, klMax: 0, differenceMax: 0, agreed: 0 };
  const tokenizedDifferently: number[] = [];
  let ofLogProbabilities = false;
  try {
    const left = new Set(reference.indices);
    if (left.size === 0) throw notComparable('there is nothing to compare with');
    for await (const given of candidate) {
      if (!left.delete(given.index)) continue;
      const kept = await reference.read(given.index);
      ofLogProbabilities ||= kept.areLogProbabilities || given.areLogProbabilities;
      if (!isSame(kept.tokens, given.tokens)) tokenizedDifferently.push(given.index);
      else addText(tally, kept, given, ofLogProbabilities);
      if (left.size === 0) break;
    }
    if (left.size > 0) throw notComparable(`text ${[...left][0]} is missing`);
  } finally {
    await reference.close();
  }
  const { positions } = tally;
  const mean = (sum: number): number => (positions === 0 ? 0 : sum / positions);
  return {
    positions,
    klMean: mean(tally.kl),
    klMax: tally.klMax,
    logitDifferenceMax: tally.differenceMax,
    ofLogProbabilities,
    top1Agreement: mean(tally.agreed),
    tokenizedDifferently: tokenizedDifferently.sort((a, b) => a - b),
  };
}

function addText(
  tally: Tally,
  reference: Distributions,
  candidate: Distributions,
  ofLogProbabilities: boolean,
): void {
  const { vocabulary } = reference;
  if (candidate.vocabulary !== vocabulary) {
    throw notComparable(`the vocabularies have ${vocabulary} and ${candidate.vocabulary} tokens`);
  }
  if (candidate.values.length !== reference.values.length || candidate.from !== reference.from) {
    throw notComparable('they are of different positions');
  }
  for (let start = 0; start < reference.values.length; start += vocabulary) {
    const row = compareRows(
      reference.values.subarray(start, start + vocabulary),
      candidate.values.subarray(start, start + vocabulary),
      ofLogProbabilities,
    );
    if (!Number.isFinite(row.kl) || !Number.isFinite(row.difference)) {
      throw new WeldlineError(
        'evaluate.not-finite',
        `At token ${reference.from + start / vocabulary} of text ${reference.index} a model gives ` +
          'no finite numbers for its next token. Its weights are damaged, or overflow in 16 bits.',
      );
    }
    tally.positions += 1;
    tally.kl += row.kl;
    tally.klMax = Math.max(tally.klMax, row.kl);
    tally.differenceMax = Math.max(tally.differenceMax, row.difference);
    if (row.agreed) tally.agreed += 1;
  }
}

/** Values are logits, or log-probabilities, which are logits too. */
function compareRows(
  reference: Float32Array,
  candidate: Float32Array,
  ofLogProbabilities: boolean,
): { kl: number; difference: number; agreed: boolean } {
  const p = normalizerOf(reference);
  const q = normalizerOf(candidate);
  const shift = p.logSum - q.logSum;
  let kl = 0;
  let difference = 0;
  for (let token = 0; token < reference.length; token++) {
    const apart = reference[token]! - candidate[token]!;
    // A token that neither can give, by a mask, is no difference.
    if (Number.isNaN(apart) && reference[token] === -Infinity) continue;
    const logRatio = apart - shift;
    const probability = Math.exp(reference[token]! - p.logSum);
    if (probability > 0) kl += probability * logRatio;
    difference = Math.max(difference, Math.abs(ofLogProbabilities ? logRatio : apart));
  }
  // Rounding may take it below 0, which it cannot be.
  return { kl: Math.max(0, kl), difference, agreed: p.best === q.best };
}

/** ln Σ exp(value), and the index of the largest value, of equals the first. NaN where there is one. */
export function normalizerOf(values: Float32Array): { logSum: number; best: number } {
  let best = 0;
  for (let token = 1; token < values.length; token++) {
    if (values[token]! > values[best]!) best = token;
  }
  const max = values[best]!;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - max);
  return { logSum: max + Math.log(sum), best };
}

function isSame(one: Int32Array, other: Int32Array): boolean {
  return one.length === other.length && one.every((token, index) => token === other[index]);
}

function notComparable(problem: string): WeldlineError {
  return new WeldlineError(
    'evaluate.not-comparable',
    `The distributions of a candidate and of its reference cannot be compared: ${problem}.`,
  );
}
