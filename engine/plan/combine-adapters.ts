import type { Adapter } from '../adapters/adapter.ts';
import { type Binding, bindAdapter } from '../adapters/bind-adapter.ts';
import { isAdded } from '../adapters/kinds/module-change.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { Combination } from './combination.ts';
import { combinationProblem } from './combination-problem.ts';
import { ADAPTERS_MAX, type UnreadFile, WEIGHT_MAX } from './plan.ts';

/** An adapter of a merge, and which of its files count. */
export interface OpenedAdapter {
  readonly adapter: Adapter;
  readonly files: readonly UnreadFile[];
}

/** One adapter's part in a merge. */
export interface Part extends OpenedAdapter {
  readonly weight: number;
  readonly binding: Binding;
}

/**
 * Checks how adapters are to be combined, from their ids alone, and the method's parameters.
 *
 * @returns the weight of each
 * @throws WeldlineError `plan.option-invalid`
 */
export function chooseWeights(
  ids: readonly string[],
  combination: Combination | undefined,
): readonly number[] {
  if (ids.length === 0) throw invalid('A merge needs an adapter. Name at least one.');
  if (ids.length > ADAPTERS_MAX) {
    throw invalid(`${ids.length} adapters are more than the ${ADAPTERS_MAX} of one merge.`);
  }
  if (ids.includes('base')) {
    throw invalid(
      'An adapter cannot have the id "base", which names the base in plans. Give it another id.',
    );
  }
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) {
    throw invalid(`Two adapters have the id "${twice}". Give each an id of its own.`);
  }
  if (ids.length > 1 && combination === undefined) {
    throw invalid(
      `There are ${ids.length} adapters, and nothing says how to combine them. Set ` +
        'combination.method (--combine): linear adds them up, each times its weight (cat is the ' +
        'same sum under the name that PEFT has for it); sequential merges one after the other, ' +
        'without weights; ties, dare_linear, dare_ties and magnitude_prune thin them out.',
    );
  }
  const { method, weights, parameters } = combination ?? {};
  const problem = combinationProblem(method ?? 'linear', parameters ?? {}, ids.length);
  if (problem !== undefined) throw invalid(`combination: ${problem.message}.`);
  if (weights === undefined) return ids.map(() => 1);
  if (method === 'sequential') {
    throw invalid(
      'sequential merges adapters as they were trained and takes no weights. Leave them out, or ' +
        'combine by linear.',
    );
  }
  if (weights.length !== ids.length) {
    throw invalid(
      `There are ${weights.length} weights for ${ids.length} adapters. Give one for each.`,
    );
  }
  const bad = weights.find((weight) => !(Math.abs(weight) <= WEIGHT_MAX) || weight === 0);
  if (bad !== undefined) {
    throw invalid(
      `An adapter has the weight ${bad}; it must be a number from -${WEIGHT_MAX} to ${WEIGHT_MAX}, ` +
        'and not 0: an adapter that adds nothing is left out.',
    );
  }
  return weights;
}

/**
 * Binds all adapters to one base, and refuses those that contradict each other: what a tensor then
 * is would depend on who came last. Where that is what was asked for (`sequential`), a tensor may be
 * scaled or rotated as well as added to.
 *
 * @throws WeldlineError what binding throws, `adapter.contradiction`, `plan.option-invalid`
 */
export function bindAdapters(
  adapters: readonly OpenedAdapter[],
  weights: readonly number[],
  checkpoint: Checkpoint,
  config: ModelConfig,
  method: Combination['method'] | undefined,
): readonly Part[] {
  const parts = adapters.map((opened, index) => ({
    ...opened,
    weight: weights[index] ?? 1,
    binding: bindAdapter(opened.adapter, checkpoint, config),
  }));
  for (const part of parts) checkWeight(part);
  checkVocabularies(parts);
  checkRows(parts);
  const changes = new Map<string, Change>();
  for (const { adapter, binding } of parts) {
    for (const [name, how] of changesOf(binding)) {
      const earlier = changes.get(name);
      const change = { id: adapter.id, how };
      if (earlier !== undefined && !agree(earlier, change, method)) {
        // What can be added up, only this method cannot combine.
        if (agree(earlier, change, 'linear')) throw notByThis(name, earlier, change, method);
        throw contradiction(name, earlier, change, agree(earlier, change, 'sequential'));
      }
      // What is said of a tensor is the strongest of what was done to it.
      if (earlier === undefined || earlier.how === ADDS) changes.set(name, change);
    }
  }
  return parts;
}

/**
 * The order in which deltas are combined: by their ids, so that the same adapters give the same
 * plan and the same roundings however they are listed. Only `sequential` keeps that order, and PEFT,
 * which gives the result the configuration of the first.
 */
export function inPlanOrder<Each extends Part>(
  parts: readonly Each[],
  combination: Combination | undefined,
): readonly Each[] {
  const { method } = combination ?? {};
  if (method === 'sequential' || method?.startsWith('peft_')) return parts;
  return parts.toSorted((a, b) => (a.adapter.id < b.adapter.id ? -1 : 1));
}

const ADDS = 'adds to it';
const ADDS_PARTS = 'adds to some of its rows (the base cuts weights in another way)';
const SCALES_PARTS = 'scales some of its rows (DoRA)';
const ADDS_DENSE = 'adds what is no low-rank product (LoHa, LoKr)';
const SCALES_DORA = 'scales it (DoRA)';
const SCALES_IA3 = 'scales it ((IA)³)';
const ROTATES = 'rotates it (OFT)';
const REPLACES_ROWS = 'replaces rows (trainable_token_indices)';

/** What can be done to a tensor by several adapters at once, by the methods that are sums. */
const ADDED: readonly string[] = [ADDS, ADDS_DENSE];

/** What can be done to it by one after the other. */
const IN_TURN: readonly string[] = [...ADDED, SCALES_DORA, SCALES_IA3, ROTATES];

function agree(one: Change, other: Change, method: Combination['method'] | undefined): boolean {
  const isAll = (among: readonly string[]): boolean =>
    [one, other].every(({ how }) => among.includes(how));
  // Of rows that are cut, each step would have to be.
  if (isAll([ADDS, ADDS_PARTS])) return true;
  // That these are different rows was checked.
  if (isAll([REPLACES_ROWS])) return true;
  if (method === 'sequential') return isAll(IN_TURN);
  return isAll(method === 'linear' || method === 'cat' ? ADDED : [ADDS]);
}

interface Change {
  readonly id: string;
  readonly how: string;
}

/** What an adapter does to each tensor; the strongest of it, where it does several things. */
function changesOf(binding: Binding): ReadonlyMap<string, string> {
  const { deltas, blocks, replacements, tokens } = binding;
  const changes = new Map<string, string>();
  for (const [name, { pair, isBias }] of deltas) {
    const isScaled = pair.magnitude !== undefined && !isBias;
    changes.set(name, isScaled ? SCALES_DORA : ADDS);
  }
  for (const [name, { change }] of binding.changes) {
    const isScaled = change.form.kind === 'scale';
    changes.set(name, isAdded(change.form) ? ADDS_DENSE : isScaled ? SCALES_IA3 : ROTATES);
  }
  for (const [name, list] of blocks) {
    const isScaled = list.some(({ pair }) => pair.magnitude !== undefined);
    changes.set(name, isScaled ? SCALES_PARTS : ADDS_PARTS);
  }
  for (const name of tokens.keys()) changes.set(name, REPLACES_ROWS);
  for (const name of replacements.keys()) changes.set(name, 'replaces it (modules_to_save, bias)');
  return changes;
}

/** A weight scales what is added. There is no such thing for what takes another's place. */
function checkWeight({ adapter, weight, binding }: Part): void {
  if (weight === 1) return;
  const other = [...changesOf(binding)].find(([, how]) => ![...ADDED, ADDS_PARTS].includes(how));
  if (other === undefined) return;
  const [name, how] = other;
  throw invalid(
    `Adapter "${adapter.id}" has the weight ${weight}, but of "${name}" it ${how}, and only what ` +
      'is added can be weighted. Give it the weight 1.',
  );
}

/** Two numbers of tokens cannot both be. */
function checkVocabularies(parts: readonly Part[]): void {
  const [first, second] = parts.filter(({ binding }) => binding.vocabulary !== undefined);
  if (first === undefined || second === undefined) return;
  throw new WeldlineError(
    'adapter.contradiction',
    `Adapters "${first.adapter.id}" and "${second.adapter.id}" both change the vocabulary (to ` +
      `${first.binding.vocabulary} and ${second.binding.vocabulary} rows): the same ids mean other ` +
      'tokens. Merge one of them. Nothing was written.',
  );
}

/** Rows of one tensor may be trained by several adapters, each its own. */
function checkRows(parts: readonly Part[]): void {
  const trainedBy = new Map<string, Map<number, string>>();
  for (const { adapter, binding } of parts) {
    for (const [name, { indices }] of binding.tokens) {
      const rows = trainedBy.get(name) ?? new Map<number, string>();
      trainedBy.set(name, rows);
      const shared = indices.filter((index) => rows.has(index)).sort((a, b) => a - b);
      const [first] = shared;
      if (first !== undefined) throw sharedRows(name, rows.get(first) ?? '', adapter.id, shared);
      for (const index of indices) rows.set(index, adapter.id);
    }
  }
}

function sharedRows(name: string, one: string, other: string, rows: readonly number[]) {
  const shown = rows.slice(0, 10).join(', ');
  return new WeldlineError(
    'adapter.contradiction',
    `Adapters "${one}" and "${other}" both replace ${rows.length} rows of "${name}" ` +
      `(trainable_token_indices): ${shown}${rows.length > 10 ? ', …' : ''}. The same ids mean other ` +
      'tokens. Merge one of them, or train one again with other ids. Nothing was written.',
  );
}

function notByThis(
  name: string,
  one: Change,
  other: Change,
  method: Combination['method'] | undefined,
): WeldlineError {
  const { id, how } = [one, other].find((change) => change.how !== ADDS) ?? one;
  return invalid(
    `On "${name}" adapter "${id}" ${how}, and ${method} combines low-rank deltas of whole weights ` +
      'only. Combine by linear, which adds up all of them, or by sequential. Nothing was written.',
  );
}

/** @param inTurn whether they can be merged one after the other */
function contradiction(name: string, one: Change, other: Change, inTurn: boolean): WeldlineError {
  return new WeldlineError(
    'adapter.contradiction',
    `Adapters "${one.id}" and "${other.id}" contradict each other on "${name}": "${one.id}" ` +
      `${one.how}, "${other.id}" ${other.how}. Merge one of them, ` +
      (inTurn ? 'merge them in turn (combination.method: sequential), ' : '') +
      'or train one without this module. Nothing was written.',
  );
}

function invalid(message: string): WeldlineError {
  return new WeldlineError('plan.option-invalid', message);
}
