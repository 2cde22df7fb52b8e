/**
 * A named way from the name a tensor has in the adapter to the name it has on disk. A rule holds
 * for a whole adapter or not at all, so that half an adapter is never bound by luck.
 */
export interface BindingRule {
  readonly name: string;
  toDisk(tensor: string): string;
}

const EXACT: BindingRule = { name: 'exact', toDisk: (tensor) => tensor };

/** transformers saves a model without its head under names without the model's prefix. */
const PREFIXES = ['model.', 'transformer.', 'gpt_neox.'];

const RULES: readonly BindingRule[] = [
  ...PREFIXES.map((prefix) => ({
    name: `without-prefix ${prefix}`,
    toDisk: (tensor: string) => (tensor.startsWith(prefix) ? tensor.slice(prefix.length) : tensor),
  })),
  ...PREFIXES.map((prefix) => ({
    name: `with-prefix ${prefix}`,
    toDisk: (tensor: string) => prefix + tensor,
  })),
];

/**
 * The rule under which every tensor exists on disk. The exact names win; otherwise exactly one
 * other rule must fit.
 *
 * @param tensors names in the adapter
 * @param isOnDisk whether a name is there, as a whole or in pieces
 * @param elsewhere names that need not be on disk (the head of a tied pair)
 * @returns the rule, or the exact one with the names it leaves unbound
 */
export function chooseRule(
  tensors: readonly string[],
  isOnDisk: (name: string) => boolean,
  elsewhere: ReadonlySet<string>,
): { readonly rule: BindingRule; readonly unbound: readonly string[]; readonly fitting: number } {
  const unboundUnder = (rule: BindingRule): string[] =>
    tensors.filter((tensor) => {
      const name = rule.toDisk(tensor);
      return !isOnDisk(name) && !elsewhere.has(name) && !elsewhere.has(tensor);
    });
  const unbound = unboundUnder(EXACT);
  if (unbound.length === 0) return { rule: EXACT, unbound, fitting: 1 };
  const fitting = RULES.filter((rule) => unboundUnder(rule).length === 0);
  const [rule] = fitting;
  if (rule === undefined || fitting.length > 1) {
    return { rule: EXACT, unbound, fitting: fitting.length };
  }
  return { rule, unbound: [], fitting: 1 };
}
