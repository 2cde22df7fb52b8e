import type { PairedOutcomes } from '../../../evaluation/gate/paired-outcomes.ts';

/** Every outcome of so many prompts of which a share is lost and a share gained, and how likely it is. */
export function* outcomesOf(
  prompts: number,
  lostShare: number,
  gainedShare: number,
): Iterable<{ readonly outcomes: PairedOutcomes; readonly probability: number }> {
  for (let lost = 0; lost <= prompts; lost++) {
    for (let gained = 0; gained <= prompts - lost; gained++) {
      const same = prompts - lost - gained;
      const probability =
        ways(prompts, lost) *
        ways(prompts - lost, gained) *
        lostShare ** lost *
        gainedShare ** gained *
        (1 - lostShare - gainedShare) ** same;
      if (probability > 1e-12) yield { outcomes: { prompts, lost, gained }, probability };
    }
  }
}

export function ways(of: number, choose: number): number {
  let product = 1;
  for (let k = 1; k <= choose; k++) product = (product * (of - choose + k)) / k;
  return product;
}
