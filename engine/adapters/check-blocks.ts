import { WeldlineError } from '../errors.ts';
import type { Adapter } from './adapter.ts';
import { ADAPTER_CONFIG_FILE } from './adapter-config.ts';
import type { BlockBinding, BlockDelta } from './bind-blocks.ts';

/**
 * Checks that what is bound in pieces is bound alike everywhere: every tensor whose name differs in
 * numbers only (another layer, another expert) has the same parts, and of experts that are fused on
 * disk every one. A part that is missing was lost when the adapter was saved.
 *
 * That is only decidable for lists of names that nothing narrows.
 * @throws WeldlineError `adapter.target-without-tensors`
 */
export function checkBlocks(
  { adapter, checkpoint }: BlockBinding,
  deltas: ReadonlyMap<string, readonly BlockDelta[]>,
): void {
  checkParameters(adapter, deltas);
  const { targetModules, targetParameters, targetsAreNarrowed } = adapter.config;
  const named = [...(Array.isArray(targetModules) ? targetModules : []), ...targetParameters];
  const isNarrowed =
    targetsAreNarrowed || typeof targetModules === 'string' || named.some(hasDigit);
  if (deltas.size === 0 || isNarrowed) return;
  const partsByShape = new Map<string, Set<string>>();
  for (const [tensor, list] of deltas) {
    const parts = partsByShape.get(withoutNumbers(tensor)) ?? new Set();
    for (const { part } of list) parts.add(part);
    partsByShape.set(withoutNumbers(tensor), parts);
  }
  for (const [tensor, { shape }] of checkpoint.tensors) {
    const wanted = partsByShape.get(withoutNumbers(tensor));
    if (wanted === undefined) continue;
    const present = new Set(deltas.get(tensor)?.map(({ part }) => part));
    const missing =
      [...wanted].find((part) => !present.has(part)) ?? missingExpert(wanted, shape[0] ?? 0);
    if (missing === undefined) continue;
    throw new WeldlineError(
      'adapter.target-without-tensors',
      `Adapter "${adapter.id}" changes tensors like "${tensor}", but has nothing for ` +
        `${missing === '' ? 'this one' : `"${missing}" of this one`}. Part of the adapter was lost ` +
        'when it was saved; save it again. If it was never trained, narrow target_modules in a copy ' +
        'of the adapter.',
    );
  }
}

/** Checks that there is a pair for each of `target_parameters`. */
function checkParameters(
  adapter: Adapter,
  deltas: ReadonlyMap<string, readonly BlockDelta[]>,
): void {
  const { targetParameters } = adapter.config;
  if (targetParameters.length === 0) return;
  const bound = new Set(adapter.pairs.map(({ module }) => `.${module}.weight`));
  for (const list of deltas.values()) for (const { pair } of list) bound.add(`.${pair.module}`);
  const lost = targetParameters.find(
    (target) => ![...bound].some((name) => name.endsWith(`.${target}`)),
  );
  if (lost === undefined) return;
  throw new WeldlineError(
    'adapter.target-without-tensors',
    `${adapter.name}/${ADAPTER_CONFIG_FILE} has "${lost}" among its target_parameters, but the ` +
      'adapter has no tensors for it. Part of it was lost when it was saved; save it again. If it was ' +
      'never trained, remove the name in a copy of the adapter.',
  );
}

/** An expert that no tensor has, of those that an adapter names one by one. */
function missingExpert(parts: ReadonlySet<string>, experts: number): string | undefined {
  const suffixes = new Set([...parts].map((part) => /^expert \d+(.*)$/.exec(part)?.[1]));
  for (const suffix of suffixes) {
    if (suffix === undefined) continue;
    for (let expert = 0; expert < experts; expert++) {
      if (!parts.has(`expert ${expert}${suffix}`)) return `expert ${expert}${suffix}`;
    }
  }
  return undefined;
}

function withoutNumbers(name: string): string {
  return name.replace(/\d+/g, '*');
}

function hasDigit(name: string): boolean {
  return /(^|\.)\d+(\.|$)/.test(name);
}
