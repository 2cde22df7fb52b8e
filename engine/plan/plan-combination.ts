import { WeldlineError } from '../errors.ts';
import type { Part } from './combine-adapters.ts';
import type { Plan, TensorCombination } from './plan-schema.ts';
import { isPlainSum, type Thinning } from './thinning.ts';

/** A part that has a density too. */
export type ThinnedPart = Part & { readonly density: number };

/** Gives every part its density: 1 where deltas are added as they are. */
export function withDensities(
  parts: readonly Part[],
  thinning: Thinning | undefined,
): readonly ThinnedPart[] {
  return parts.map((part, index) => ({ ...part, density: thinning?.densities[index] ?? 1 }));
}

/**
 * Of a tensor: how its deltas are combined. Of adapters that do not touch it nothing is said: they
 * have no voice in an election and do not count where it is divided by how many agree.
 *
 * @returns undefined where it is their sum, each times its weight
 */
export function planCombination(
  name: string,
  parts: readonly ThinnedPart[],
  thinning: Thinning | undefined,
): TensorCombination | undefined {
  const touching = parts.filter(({ binding }) => binding.deltas.has(name));
  if (thinning === undefined || touching.length === 0) return undefined;
  const { method, seed, majoritySign } = thinning;
  const densities = touching.map(({ density }) => density);
  if (isPlainSum(method, densities)) return undefined;
  return {
    method,
    ...(seed === undefined ? {} : { seed }),
    ...(majoritySign === undefined ? {} : { majoritySign }),
    parts: touching.map(({ weight, density }) => ({ weight, density })),
  };
}

/**
 * What the plan's options say of it; nothing where one adapter is merged as it is.
 * @param whole what they say where it is no sum of deltas
 */
export function combinationOption(
  parts: readonly ThinnedPart[],
  thinning: Thinning | undefined,
  whole: Plan['options']['combination'],
): Pick<Plan['options'], 'combination'> {
  if (whole !== undefined) return { combination: whole };
  const weights = parts.map(({ weight }) => weight);
  const densities = parts.map(({ density }) => density);
  if (thinning === undefined || isPlainSum(thinning.method, densities)) {
    const isPlain = weights.length === 1 && weights[0] === 1;
    return isPlain ? {} : { combination: { method: 'linear', weights } };
  }
  const { method, seed, majoritySign } = thinning;
  const parameters = {
    densities,
    ...(seed === undefined ? {} : { seed }),
    ...(majoritySign === undefined ? {} : { majoritySign }),
  };
  return { combination: { method, weights, parameters } };
}

/**
 * DoRA scales rows of the merged weight; that is no delta, so nothing of it can be thinned out. Nor is
 * what goes to blocks of rows, of which elements a share would be taken is not defined, or what kinds
 * beside LoRA do.
 *
 * @throws WeldlineError `adapter.contradiction`, `plan.option-invalid`
 */
export function refuseUnthinnable(
  parts: readonly ThinnedPart[],
  thinning: Thinning | undefined,
): void {
  const densities = parts.map(({ density }) => density);
  if (thinning === undefined || isPlainSum(thinning.method, densities)) return;
  for (const { adapter, binding } of parts) {
    const [block = [...binding.changes.keys()][0]] = binding.blocks.keys();
    if (block !== undefined) {
      throw new WeldlineError(
        'plan.option-invalid',
        `Adapter "${adapter.id}" changes "${block}" otherwise than by one low-rank delta of all of it, ` +
          `and ${thinning.method} thins out nothing else. Combine by linear or sequential. Nothing ` +
          'was written.',
      );
    }
    const found = [...binding.deltas].find(([, { pair }]) => pair.magnitude !== undefined);
    if (found === undefined) continue;
    throw new WeldlineError(
      'adapter.contradiction',
      `Adapter "${adapter.id}" has DoRA on "${found[0]}": it scales rows of the merged weight, which ` +
        `is more than a delta, and ${thinning.method} combines deltas. Merge it alone or by ` +
        'sequential, or combine adapters without DoRA. Nothing was written.',
    );
  }
}
