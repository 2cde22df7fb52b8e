import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { AdapterFormat } from './adapter-format.ts';
import { RENAMES, type Rename } from './renames.ts';

/**
 * A named way from the name a tensor has in the adapter to the name it has on disk. A rule holds
 * for a whole adapter or not at all, so that half an adapter is never bound by luck.
 */
export interface BindingRule {
  readonly name: string;
  toDisk(tensor: string): string;
}

const EXACT: BindingRule = { name: 'exact', toDisk: (tensor) => tensor };

const RULES: readonly BindingRule[] = RENAMES.map(({ name, renames }) => ({
  name,
  toDisk: (tensor) => rename(tensor, renames),
}));

/** The first that fits is applied, once; what none fits keeps its name. */
function rename(tensor: string, renames: readonly Rename[]): string {
  for (const [from, to] of renames) {
    if (from.test(tensor)) return tensor.replace(from, to);
  }
  return tensor;
}

/** Names without dots, as kohya's trainers write them; one that two tensors have means neither. */
function withoutDots(checkpoint: Checkpoint): BindingRule & { readonly doubtful: Set<string> } {
  const names = new Map<string, string>();
  const doubtful = new Set<string>();
  for (const name of checkpoint.tensors.keys()) {
    if (!name.endsWith('.weight')) continue;
    const joined = `${name.slice(0, -'.weight'.length).replaceAll('.', '_')}.weight`;
    if (names.has(joined)) doubtful.add(joined);
    names.set(joined, name);
  }
  for (const joined of doubtful) names.delete(joined);
  return {
    name: 'underscores for dots',
    toDisk: (tensor) => names.get(tensor) ?? tensor,
    doubtful,
  };
}

interface RuleOptions {
  readonly checkpoint: Checkpoint;
  /** Whether a name is in the base, as a whole or in pieces. */
  isOnDisk(name: string): boolean;
  /** Names that need not be on disk (the head of a tied pair). */
  readonly elsewhere: ReadonlySet<string>;
  readonly format: AdapterFormat;
}

/**
 * The rule under which every tensor exists on disk. The exact names win; otherwise exactly one
 * other rule must fit, or several that mean the same tensors.
 *
 * @param tensors names in the adapter
 * @returns the rule, or the exact one with the names it leaves unbound
 */
export function chooseRule(
  tensors: readonly string[],
  { checkpoint, isOnDisk, elsewhere, format }: RuleOptions,
): { readonly rule: BindingRule; readonly unbound: readonly string[]; readonly fitting: number } {
  const unboundUnder = (rule: BindingRule): string[] =>
    tensors.filter((tensor) => {
      const name = rule.toDisk(tensor);
      return !isOnDisk(name) && !elsewhere.has(name) && !elsewhere.has(tensor);
    });
  if (format === 'kohya') {
    const rule = withoutDots(checkpoint);
    const unbound = unboundUnder(rule);
    return { rule, unbound, fitting: unbound.some((name) => rule.doubtful.has(name)) ? 2 : 1 };
  }
  const unbound = unboundUnder(EXACT);
  if (unbound.length === 0) return { rule: EXACT, unbound, fitting: 1 };
  const fitting = new Map<string, BindingRule>();
  for (const rule of RULES) {
    if (unboundUnder(rule).length > 0) continue;
    const meaning = tensors.map((tensor) => rule.toDisk(tensor)).join('\n');
    if (!fitting.has(meaning)) fitting.set(meaning, rule);
  }
  const [rule] = fitting.values();
  if (rule === undefined || fitting.size > 1)
    return { rule: EXACT, unbound, fitting: fitting.size };
  return { rule, unbound: [], fitting: 1 };
}
