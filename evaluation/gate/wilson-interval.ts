import type { Interval } from '../gate-decision.ts';
import { Z_CONFIDENCE } from './normal-quantiles.ts';

/**
 * A share of right answers with its 95 % interval: Wilson's, which stays between 0 and 1 and is not
 * empty where all answers are right (Brown, Cai and DasGupta, "Interval estimation for a binomial
 * proportion", 2001).
 */
export function wilsonInterval(correct: number, prompts: number): Interval {
  if (prompts === 0) return { value: 0, low: 0, high: 1 };
  const value = correct / prompts;
  const square = Z_CONFIDENCE ** 2;
  const centre = (correct + square / 2) / (prompts + square);
  const reach =
    (Z_CONFIDENCE / (prompts + square)) *
    Math.sqrt((correct * (prompts - correct)) / prompts + square / 4);
  return {
    value,
    // All right or all wrong is the end itself, which rounding would miss.
    low: correct === 0 ? 0 : Math.max(0, centre - reach),
    high: correct === prompts ? 1 : Math.min(1, centre + reach),
  };
}
