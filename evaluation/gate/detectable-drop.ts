import { Z_CONFIDENCE, Z_POWER } from './normal-quantiles.ts';

/** More prompts than anybody would write; a drop that needs more is said to need too many. */
export const PROMPTS_MAX = 1_000_000;

/** To a millionth of a millionth: the figure must not depend on where the search stopped. */
const BISECTIONS = 40;

interface Noise {
  /** What the drop must be larger than, 0 to 1. */
  readonly dropMax: number;
  /** Share of prompts that the candidate gains by chance, 0 to 1. */
  readonly gainedShare: number;
  /** Share of prompts that the reference has right: more cannot be lost. */
  readonly rightShare: number;
}

/**
 * The smallest true drop that a suite would find in 80 of 100 tries.
 *
 * The normal approximation to the gate's own rule: the lower end of the drop's interval, with one
 * prompt lost and one gained added as in `bootstrapDrop`, is above `dropMax`. With Δ = drop and
 * ψ = Δ + 2 · gained, the share of prompts that change, it is the Δ of
 *
 *     Δ' − dropMax = 1.96 · √((ψ' − Δ'²) / (n + 2)) + 0.84 · √(n (ψ − Δ²)) / (n + 2)
 *     Δ' = n Δ / (n + 2), ψ' = (n ψ + 2) / (n + 2)
 *
 * (Connor, "Sample size for testing differences in proportions for the paired-sample design", 1987,
 * before the adjustment).
 *
 * @returns a share of the prompts, dropMax to 1, or undefined where not even losing all that was
 *   right would be found
 */
export function smallestDropSeen(prompts: number, noise: Noise): number | undefined {
  const most = noise.rightShare - noise.gainedShare;
  if (!isSeen(most, prompts, noise)) return undefined;
  let low = 0;
  let high = most;
  for (let step = 0; step < BISECTIONS; step++) {
    const middle = (low + high) / 2;
    if (isSeen(middle, prompts, noise)) high = middle;
    else low = middle;
  }
  return high;
}

/**
 * How many prompts would show a drop, by the same formula.
 *
 * @returns undefined where it is not above `dropMax`, or {@link PROMPTS_MAX} would not do
 */
export function promptsToSee(drop: number, noise: Noise): number | undefined {
  if (drop <= noise.dropMax || !isSeen(drop, PROMPTS_MAX, noise)) return undefined;
  let low = 0;
  let high = PROMPTS_MAX;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (isSeen(drop, middle, noise)) high = middle;
    else low = middle;
  }
  return high;
}

function isSeen(drop: number, prompts: number, { dropMax, gainedShare }: Noise): boolean {
  const draws = prompts + 2;
  const changed = drop + 2 * gainedShare;
  const adjustedDrop = (prompts * drop) / draws;
  const adjustedChanged = (prompts * changed + 2) / draws;
  const reach = Z_CONFIDENCE * Math.sqrt((adjustedChanged - adjustedDrop ** 2) / draws);
  const chance = (Z_POWER * Math.sqrt(prompts * Math.max(0, changed - drop ** 2))) / draws;
  return adjustedDrop - dropMax > reach + chance;
}
