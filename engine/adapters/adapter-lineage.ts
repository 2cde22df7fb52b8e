import { WeldlineError } from '../errors.ts';
import type { Combination } from '../plan/combination.ts';

/** A model that an adapter was trained on and that is an adapter itself. */
export interface AdapterBelow {
  /** As a recipe would name it. */
  readonly model: string;
  /** The same text for the same adapter, however it is named. */
  readonly identity: string;
}

/** What an adapter was trained on. */
export interface AdapterLineage extends AdapterBelow {
  readonly id: string;
  /** What its configuration says. */
  readonly trainedOn: TrainedOn | undefined;
  /** The adapters below it, the nearest first. */
  readonly below: readonly AdapterBelow[];
  /** Whether it scales what it was trained on to trained lengths (DoRA). */
  readonly isDora: boolean;
}

export interface TrainedOn {
  /** A path or `org/name`. */
  readonly name: string;
  readonly revision: string | undefined;
}

/** The base of a merge, where it is on a hub. */
export interface HubBase {
  readonly repo: string;
  /** As asked for. */
  readonly revision: string;
  readonly commit: string;
}

const HUB_NAME = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/;
const COMMIT = /^[0-9a-f]{40}$/;

/** Whether a name in a configuration can be that of a hub repository. */
export function isHubName(name: string): boolean {
  return HUB_NAME.test(name);
}

/**
 * Checks that adapters are merged onto what they were trained on, as far as names tell.
 *
 * @param base undefined for a local directory, whose origin is not known
 * @param adapters in the order in which they are merged
 * @param combination how, where there are several
 * @returns warnings, which depend on nothing but names and configurations
 * @throws WeldlineError `adapter.chain` for an adapter of adapters that are not all merged before it,
 *   or not as a whole, or whose lengths are those of what they made; `adapter.other-base` for another commit of the base than the one it names
 */
export function checkLineage(
  base: HubBase | undefined,
  adapters: readonly AdapterLineage[],
  combination?: Combination,
): readonly string[] {
  for (const [index, adapter] of adapters.entries()) {
    checkChain(adapter, adapters.slice(0, index), combination);
  }
  return adapters.flatMap((adapter) => checkBase(adapter, base, adapters) ?? []);
}

/** Its delta is one of the sum of all that is below it. */
function checkChain(
  adapter: AdapterLineage,
  before: readonly AdapterLineage[],
  combination: Combination | undefined,
): void {
  const chain = adapter.below.toReversed();
  let next = 0;
  for (const { identity } of chain) {
    const at = before.findIndex((each, index) => index >= next && each.identity === identity);
    if (at < 0) throw brokenChain(adapter, chain);
    if (!isWhole(combination, at)) throw thinnedChain(adapter, before[at]!, combination);
    next = at + 1;
  }
  if (adapter.isDora && chain.length > 0) throw doraOfChain(adapter);
}

/** Methods that add all of a delta. */
const SUMS: readonly string[] = ['linear', 'cat', 'sequential', 'peft_cat'];

function isWhole(combination: Combination | undefined, place: number): boolean {
  if (combination === undefined) return true;
  return SUMS.includes(combination.method) && (combination.weights?.[place] ?? 1) === 1;
}

function thinnedChain(
  { id }: AdapterLineage,
  lower: AdapterLineage,
  combination: Combination | undefined,
): WeldlineError {
  return new WeldlineError(
    'adapter.chain',
    `Adapter "${id}" was trained on top of all of "${lower.id}", and ${combination?.method} with ` +
      'these weights takes another share of that one. Merge them in turn (combination.method: ' +
      'sequential), or give what is below the weight 1 (linear). Nothing was written.',
  );
}

/** Merged in turn, DoRA takes norms of the base's weights, as PEFT does for adapters of one base. */
function doraOfChain({ id, below }: AdapterLineage): WeldlineError {
  return new WeldlineError(
    'adapter.chain',
    `Adapter "${id}" was trained with DoRA on top of ${below[0]?.model}: the norms that it divides ` +
      'by are of weights with that in them, and not of the base. Merge what it was trained on first, ' +
      'into a checkpoint; set base_model_name_or_path to that in a copy of this adapter, and merge ' +
      'the copy onto it. Nothing was written.',
  );
}

function brokenChain({ id, model }: AdapterLineage, chain: readonly AdapterBelow[]): WeldlineError {
  const lines = [
    ...chain.map((each, index) => ({ id: `below-${index + 1}`, ...each })),
    { id, model },
  ];
  return new WeldlineError(
    'adapter.chain',
    `Adapter "${id}" was trained on top of ${chain.length === 1 ? 'another' : 'others'}, and its ` +
      'weights mean nothing without. Merge all of them, in this order (combination.method: ' +
      `sequential):\nadapters:\n${lines.map((each) => `  - {id: ${each.id}, model: ${each.model}}`).join('\n')}`,
    { details: { chain: chain.map((each) => each.model) } },
  );
}

function checkBase(
  { id, trainedOn, below }: AdapterLineage,
  base: HubBase | undefined,
  adapters: readonly AdapterLineage[],
): string | undefined {
  if (base === undefined || trainedOn === undefined || below.length > 0) return undefined;
  const { name, revision } = trainedOn;
  if (!isHubName(name)) return undefined;
  if (adapters.some(({ identity }) => identity === hubIdentity(name))) return undefined;
  if (name.toLowerCase() !== base.repo.toLowerCase()) {
    return (
      `Adapter "${id}" says that it was trained on ${name}, and is merged onto ${base.repo}. Where ` +
      'the weights of the two differ, the result is not what was trained.'
    );
  }
  if (revision === undefined || revision === base.revision || revision === base.commit) {
    return undefined;
  }
  if (!COMMIT.test(revision)) {
    return (
      `Adapter "${id}" was trained on ${name} at ${revision}, and is merged onto ${base.revision} ` +
      `(commit ${base.commit}). Set base.revision to ${revision} if the two are not the same.`
    );
  }
  throw new WeldlineError(
    'adapter.other-base',
    `Adapter "${id}" was trained on ${name} at commit ${revision}, and the base is commit ` +
      `${base.commit}. Set base.revision to ${revision}. If the weights of the two are the same, ` +
      'remove revision from adapter_config.json in a copy of the adapter.',
  );
}

/** The hub takes names in any case. */
export function hubIdentity(repo: string, folder = ''): string {
  return `hf://${repo.toLowerCase()}${folder === '' ? '' : `/${folder}`}`;
}
