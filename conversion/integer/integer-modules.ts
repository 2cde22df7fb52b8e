import type { IntegerConversion } from '../../config/release-quality.ts';
import { isLinearWeight } from '../../engine/architectures/linear-modules.ts';
import { WeldlineError } from '../../engine/errors.ts';

/** A linear layer that becomes integers. */
export interface IntegerModule {
  /** Its name in the checkpoint, without `.weight`. */
  readonly name: string;
  /** The tensor of the merged checkpoint that has its weight; not its own where the head is tied. */
  readonly tensor: string;
  readonly rows: number;
  readonly columns: number;
}

const WEIGHT = '.weight';
/** The tensor of an output head. */
export const HEAD = /(^|\.)lm_head\.weight$/;
const EMBEDDING = /(^|\.)embed_tokens\.weight$/;

/**
 * The linear layers of a checkpoint, before any are ignored: every matrix that is no embedding, and
 * the head. Right for the architectures that `preflightIntegers` lets pass.
 *
 * @param tensors name → shape
 */
export function linearModules(
  tensors: ReadonlyMap<string, readonly number[]>,
): readonly IntegerModule[] {
  const toModule = (tensor: string, name = tensor.slice(0, -WEIGHT.length)): IntegerModule => {
    const [rows = 0, columns = 0] = tensors.get(tensor) ?? [];
    return { name, tensor, rows, columns };
  };
  const names = [...tensors.keys()];
  const isLinear = (name: string) => {
    const shape = tensors.get(name) ?? [];
    return HEAD.test(name) || isLinearWeight({ name, dtype: 'BF16', shape });
  };
  const modules = names.filter(isLinear).map((name) => toModule(name));
  const embedding = names.find((name) => EMBEDDING.test(name));
  if (embedding === undefined || names.some((name) => HEAD.test(name))) return modules;
  // A tied head is a layer of its own to llm-compressor.
  return [...modules, toModule(embedding, 'lm_head')];
}

export interface IgnoredModules {
  readonly quantised: readonly IntegerModule[];
  readonly ignored: readonly IntegerModule[];
  /** Entries of the list that match nothing. */
  readonly unmatched: readonly string[];
}

/**
 * Divides modules by an ignore list as compressed-tensors reads it: a module's name, or `re:` and a
 * pattern that matches from the name's beginning (Python's `re.match`).
 *
 * @throws WeldlineError `convert.bad-ignore` for a pattern that is none
 */
export function ignoreModules(
  modules: readonly IntegerModule[],
  ignore: IntegerConversion['ignore'],
): IgnoredModules {
  const matchers = ignore.map((entry) => ({ entry, matches: toMatcher(entry) }));
  const isIgnored = ({ name }: IntegerModule) => matchers.some(({ matches }) => matches(name));
  return {
    quantised: modules.filter((module) => !isIgnored(module)),
    ignored: modules.filter(isIgnored),
    unmatched: matchers
      .filter(({ matches }) => !modules.some(({ name }) => matches(name)))
      .map(({ entry }) => entry),
  };
}

function toMatcher(entry: string): (name: string) => boolean {
  if (!entry.startsWith('re:')) return (name) => name === entry;
  try {
    const pattern = new RegExp(`^(?:${entry.slice('re:'.length)})`);
    return (name) => pattern.test(name);
  } catch (error) {
    throw new WeldlineError(
      'convert.bad-ignore',
      `ignore: ${entry} is no pattern (${(error as Error).message}). Write a module's name, or "re:" ` +
        'and a regular expression such as re:.*down_proj.',
      { cause: error },
    );
  }
}
