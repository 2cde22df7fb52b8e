import { WeldlineError } from '../errors.ts';
import type { LoraConfig } from './adapter-config.ts';

/** The rank and strength that the configuration gives one module. */
export interface ModuleScaling {
  readonly rank: number;
  readonly alpha: number;
  /** alpha / r, or alpha / √r with rank-stabilised LoRA. */
  readonly scaling: number;
}

/** A pattern is one line of a configuration; longer ones are an attempt to hang the matcher. */
const PATTERN_LENGTH_MAX = 1_000;

/**
 * PEFT's rule for `rank_pattern` and `alpha_pattern` (`get_pattern_key`): the first key, in the
 * order of the file, whose `(.*\.)?(KEY)$` matches the module path from its start. The two
 * dictionaries are looked up separately.
 *
 * @throws WeldlineError `adapter.bad-pattern`
 */
export function lookUpPattern(
  pattern: ReadonlyMap<string, number>,
  module: string,
): number | undefined {
  for (const [key, value] of pattern) {
    if (compile(key).test(module)) return value;
  }
  return undefined;
}

const compiled = new Map<string, RegExp>();

function compile(key: string): RegExp {
  const known = compiled.get(key);
  if (known !== undefined) return known;
  try {
    if (key.length > PATTERN_LENGTH_MAX) throw new SyntaxError('too long');
    const expression = new RegExp(`^(?:.*\\.)?(?:${key})$`);
    compiled.set(key, expression);
    return expression;
  } catch (error) {
    throw new WeldlineError(
      'adapter.bad-pattern',
      `The pattern ${JSON.stringify(key.slice(0, 200))} in rank_pattern or alpha_pattern is not a ` +
        'regular expression weldline can read. Write it as a module name.',
      { cause: error },
    );
  }
}

/** Rank and strength of `module` (a path without the `base_model.model.` prefix). */
export function scalingOf(config: LoraConfig, module: string): ModuleScaling {
  const rank = lookUpPattern(config.rankPattern, module) ?? config.r;
  const alpha = lookUpPattern(config.alphaPattern, module) ?? config.loraAlpha;
  return { rank, alpha, scaling: alpha / (config.useRslora ? Math.sqrt(rank) : rank) };
}
