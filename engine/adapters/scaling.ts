import { createContext, runInContext } from 'node:vm';
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

/** Matching takes milliseconds; an expression that backtracks without end is stopped after this. */
const MATCH_TIMEOUT_MS = 5_000;

/**
 * Rank and strength of modules (paths without the `base_model.model.` prefix).
 * @param where the adapter, for errors
 * @throws WeldlineError `adapter.bad-pattern`
 */
export function scalingsOf(
  config: LoraConfig,
  modules: readonly string[],
  where: string,
): ModuleScaling[] {
  const ranks = lookUp(config.rankPattern, modules, `${where}: rank_pattern`);
  const alphas = lookUp(config.alphaPattern, modules, `${where}: alpha_pattern`);
  return modules.map((_module, index) => {
    const rank = ranks[index] ?? config.r;
    const alpha = alphas[index] ?? config.loraAlpha;
    return { rank, alpha, scaling: alpha / (config.useRslora ? Math.sqrt(rank) : rank) };
  });
}

/**
 * PEFT's rule for `rank_pattern` and `alpha_pattern` (`get_pattern_key`): the first key, in the
 * order of the file, whose `(.*\.)?(KEY)$` matches the module path from its start. The two
 * dictionaries are looked up separately.
 */
function lookUp(
  pattern: ReadonlyMap<string, number>,
  modules: readonly string[],
  where: string,
): (number | undefined)[] {
  if (pattern.size === 0) return [];
  const expressions = [...pattern.keys()].map((key) => compile(key, where));
  const values = [...pattern.values()];
  return firstMatches(expressions, modules, where).map((index) => values[index]);
}

function compile(key: string, where: string): RegExp {
  try {
    if (key.length > PATTERN_LENGTH_MAX) throw new SyntaxError('too long');
    // With `u`, what only Python understands is refused instead of meaning something else.
    return new RegExp(`^(.*\\.)?(${key})$`, 'u');
  } catch (error) {
    throw new WeldlineError(
      'adapter.bad-pattern',
      `${where} has the key ${JSON.stringify(key.slice(0, 100))}, which is not a regular ` +
        'expression weldline can read. Write it as a module name.',
      { cause: error },
    );
  }
}

/** For each module the index of the first expression that matches, or -1. */
function firstMatches(
  expressions: readonly RegExp[],
  modules: readonly string[],
  where: string,
): readonly number[] {
  const context = createContext({ expressions, modules });
  const search = 'modules.map((module) => expressions.findIndex((one) => one.test(module)))';
  try {
    return runInContext(search, context, { timeout: MATCH_TIMEOUT_MS });
  } catch (error) {
    throw new WeldlineError(
      'adapter.bad-pattern',
      `${where} takes more than ${MATCH_TIMEOUT_MS / 1000} s to match: one of its keys is an ` +
        'expression that backtracks without end. Write the keys as module names.',
      { cause: error },
    );
  }
}
