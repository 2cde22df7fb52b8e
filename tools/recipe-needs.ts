import type { Recipe } from '../config/recipe.ts';

/** Why a recipe needs each tool, in words for people; undefined where it does not. */
export interface RecipeNeeds {
  readonly llamaCpp?: string;
  readonly python?: string;
  /** Makes an importance matrix, whose program is not among the packages of llama.cpp. */
  readonly makesImatrix: boolean;
  /** Evaluates GGUF files, which takes more of a llama.cpp of one's own than converting does. */
  readonly runsGguf: boolean;
  /** Quantizes with llm-compressor, which is slow without a graphics processor. */
  readonly calibrates: boolean;
  readonly endpoint?: string;
}

/** A pure function of the recipe. */
export function needsOf({ conversions = [], evaluation }: Recipe): RecipeNeeds {
  const gguf = conversions.find((each) => each.kind === 'gguf');
  const integer = conversions.filter((each) => each.kind !== 'gguf');
  const suites = evaluation?.suites.length ?? 0;
  const toGguf = gguf === undefined ? [] : ['to convert to GGUF'];
  const toInteger = integer.map(({ kind }) => `to quantize with ${kind.toUpperCase()}`);
  const toEvaluate = suites === 0 ? [] : ['to evaluate'];
  const llamaCpp = join(toGguf);
  const python = join([...toGguf, ...toInteger, ...toEvaluate]);
  return {
    ...(llamaCpp === undefined ? {} : { llamaCpp }),
    ...(python === undefined ? {} : { python }),
    makesImatrix: gguf?.imatrix !== undefined && 'calibration' in gguf.imatrix,
    runsGguf: gguf !== undefined && suites > 0,
    calibrates: integer.length > 0,
    ...(evaluation?.endpoint === undefined ? {} : { endpoint: evaluation.endpoint.url }),
  };
}

function join(reasons: readonly string[]): string | undefined {
  return reasons.length === 0 ? undefined : [...new Set(reasons)].join(', ');
}
