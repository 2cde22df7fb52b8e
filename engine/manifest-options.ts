/** The options of a plan as manifests have them, and back. */
import { WeldlineError } from './errors.ts';
import type { Manifest } from './manifest.ts';
import {
  COMBINATION_METHODS,
  type Combination,
  type CombinationMethod,
  type CombinationParameters,
} from './plan/combination.ts';
import { MERGE_ONTO } from './plan/merge-onto-choices.ts';
import type { MergeOptions, Plan } from './plan/plan.ts';

/** Named as in recipes. */
export function optionTexts({
  dtype,
  shardBytesMax,
  mergeOnto,
  combination,
}: Plan['options']): Manifest['options'] {
  return {
    ...(dtype === undefined ? {} : { dtype }),
    ...(shardBytesMax === undefined ? {} : { max_shard_size: shardBytesMax }),
    ...(mergeOnto === undefined ? {} : { merge_onto: mergeOnto }),
    ...(combination === undefined
      ? {}
      : {
          combination: combination.method,
          weights: combination.weights.join(', '),
          ...parameterTexts(combination.parameters ?? {}),
        }),
  };
}

function parameterTexts(
  parameters: NonNullable<NonNullable<Plan['options']['combination']>['parameters']>,
): Record<string, string | number> {
  const texts: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined) continue;
    const inRecipes = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    texts[inRecipes] = Array.isArray(value) ? value.join(', ') : value;
  }
  return texts;
}

const DTYPES = ['bfloat16', 'float16', 'float32'] as const;

/**
 * What to plan with, to get the plan that a manifest is of, but for its warnings, which name methods
 * as they were asked for.
 * @param ids of the adapters, in the order of the manifest
 * @throws WeldlineError `manifest.invalid`
 */
export function mergeOptionsOf(texts: Manifest['options'], ids: readonly string[]): MergeOptions {
  const { dtype, max_shard_size: size, merge_onto: onto } = texts;
  return {
    ...(dtype === undefined ? {} : { dtype: oneOf(DTYPES, dtype, 'dtype') }),
    ...(size === undefined ? {} : { shardBytesMax: numberOf(size, 'max_shard_size') }),
    ...(onto === undefined ? {} : { mergeOnto: oneOf(MERGE_ONTO, onto, 'merge_onto') }),
    ...(texts['combination'] === undefined ? {} : { combination: combinationOf(texts, ids) }),
  };
}

function combinationOf(texts: Manifest['options'], ids: readonly string[]): Combination {
  const method = oneOf(COMBINATION_METHODS, texts['combination'], 'combination');
  const weights = numbersOf(texts['weights'] ?? '', 'weights');
  const parameters = parametersOf(texts);
  if (method === 'sequential') return { method };
  const named = namedByOrder(method, ids);
  return { method: named, weights, ...(parameters && { parameters }) };
}

/**
 * Plans have one name for methods that are the same sum. All but PEFT's put adapters in the order of
 * their ids, so any other order tells which it was.
 */
function namedByOrder(method: CombinationMethod, ids: readonly string[]): CombinationMethod {
  const isSorted = ids.every((id, index) => index === 0 || (ids[index - 1] ?? '') < id);
  if (isSorted) return method;
  if (method === 'linear') return 'peft_cat';
  return method === 'svd' ? 'peft_svd' : method;
}

function parametersOf(texts: Manifest['options']): CombinationParameters | undefined {
  const { rank, density, densities, seed, majority_sign: sign } = texts;
  const parameters: CombinationParameters = {
    ...(rank === undefined ? {} : { rank: numberOf(rank, 'rank') }),
    ...(density === undefined ? {} : { density: numberOf(density, 'density') }),
    ...(densities === undefined ? {} : { density: numbersOf(densities, 'densities') }),
    ...(seed === undefined ? {} : { seed: numberOf(seed, 'seed') }),
    ...(sign === undefined
      ? {}
      : { majoritySign: oneOf(['total', 'frequency'] as const, sign, 'majority_sign') }),
  };
  return Object.keys(parameters).length === 0 ? undefined : parameters;
}

function oneOf<Choice extends string>(
  choices: readonly Choice[],
  text: unknown,
  name: string,
): Choice {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw unknownOption(name, text);
  return found;
}

function numbersOf(text: string | number, name: string): number[] {
  return String(text)
    .split(', ')
    .map((part) => numberOf(part, name));
}

function numberOf(text: string | number, name: string): number {
  const number = text === '' ? Number.NaN : Number(text);
  if (!Number.isFinite(number)) throw unknownOption(name, text);
  return number;
}

function unknownOption(name: string, value: unknown): WeldlineError {
  return new WeldlineError(
    'manifest.invalid',
    `The manifest says that ${name} was ${JSON.stringify(value)}, which this version of weldline does ` +
      'not know. Use the version that made it.',
  );
}
