/** What became of the same prompts under two models. */
export interface PairedOutcomes {
  readonly prompts: number;
  /** Right under the reference, wrong under the candidate. */
  readonly lost: number;
  /** Wrong under the reference, right under the candidate. */
  readonly gained: number;
}

interface Judged {
  readonly index: number;
  readonly correct: boolean;
}

/**
 * Pairs answers by prompt, in whatever order they are.
 *
 * @returns undefined where the two did not answer the same prompts, each once
 */
export function pairOutcomes(
  reference: readonly Judged[],
  candidate: readonly Judged[],
): PairedOutcomes | undefined {
  const expected = new Map(reference.map(({ index, correct }) => [index, correct]));
  const given = new Map(candidate.map(({ index, correct }) => [index, correct]));
  if (expected.size !== reference.length || given.size !== candidate.length) return undefined;
  if (expected.size !== given.size) return undefined;
  let lost = 0;
  let gained = 0;
  for (const [index, correct] of given) {
    const was = expected.get(index);
    if (was === undefined) return undefined;
    if (was && !correct) lost += 1;
    if (!was && correct) gained += 1;
  }
  return { prompts: given.size, lost, gained };
}
