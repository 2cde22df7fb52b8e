import { isAdded } from '../adapters/kinds/module-change.ts';
import { WeldlineError } from '../errors.ts';
import {
  type CombinedPart,
  checkPeftCombination,
  largestRank,
  unequalRanks,
} from './check-peft-combination.ts';
import type { Combination, CombinationMethod, MajoritySign } from './combination.ts';
import type { TensorGroup, UnplacedTensor } from './output-shards.ts';
import type {
  CombinedDeltas,
  Plan,
  PlannedChange,
  PlannedDelta,
  PlannedTensor,
} from './plan-schema.ts';

/** What a method is told, all defaults filled in. */
export interface ChosenCombination {
  readonly method: CombinationMethod;
  /** Of the result of `svd`. */
  readonly rank: number;
  /** The share of each factor's values that is kept. */
  readonly density: number | undefined;
  readonly majoritySign: MajoritySign | undefined;
  readonly weights: readonly number[];
}

/**
 * Work and memory go with the square of the sum of ranks and more: at this one a tensor takes about
 * a minute.
 */
const RANK_SUM_MAX = 1024;

/** All that a delta of two factors has. One with more is another kind, which is not combined. */
const FACTOR_KEYS = new Set([
  'adapter',
  'module',
  'a',
  'b',
  'rank',
  'alpha',
  'scaling',
  'transposed',
]);

/**
 * Says of every tensor how its deltas are combined. They stay as they are: what is added.
 *
 * @param parts in the order of the deltas
 * @throws WeldlineError `plan.option-invalid`, `adapter.contradiction` for deltas that the method
 *   cannot combine
 */
export function combineDeltas(
  groups: readonly TensorGroup[],
  parts: readonly CombinedPart[],
  chosen: ChosenCombination,
): readonly TensorGroup[] {
  checkPeftCombination(parts, chosen);
  return groups.map(({ file, tensors }) => ({
    file,
    tensors: tensors.map((tensor) => {
      const combined = combinationOf(tensor, chosen);
      if (combined === undefined) return tensor;
      for (const part of parts) checkWhole(tensor.name, part, chosen);
      return { ...tensor, combined };
    }),
  }));
}

/** Fills in what a combination leaves open. */
export function chooseCombination(
  parts: readonly (CombinedPart & { readonly weight: number })[],
  { method, parameters = {} }: Combination = { method: 'linear' },
): ChosenCombination {
  const { density, majoritySign } = parameters;
  return {
    method,
    rank: parameters.rank ?? Math.max(...parts.map(({ adapter }) => largestRank(adapter))),
    // They have one for all.
    density: typeof density === 'object' ? density[0] : density,
    majoritySign,
    weights: parts.map(({ weight }) => weight),
  };
}

/**
 * @returns undefined if the deltas of a tensor are added up as they are: `svd` of a rank that cuts
 *   nothing off is the exact sum
 */
function combinationOf(
  { name, shape, deltas, changes }: UnplacedTensor,
  chosen: ChosenCombination,
): CombinedDeltas | undefined {
  const method = factoredMethod(chosen);
  if (method !== undefined && changes !== undefined) throw noFactors(name, changes[0], chosen);
  if (deltas === undefined || method === undefined) return undefined;
  const ranks = deltas.map(({ rank }) => rank);
  const total = ranks.reduce((sum, rank) => sum + rank, 0);
  for (const delta of deltas) checkKind(name, delta, chosen);
  // A bias is a matrix of one row.
  const rankMax = shape.length === 1 ? 1 : Math.min(...shape);
  if (method === 'svd') {
    if (total <= chosen.rank || rankMax <= chosen.rank) return undefined;
    checkOrientation(name, deltas);
    if (total > RANK_SUM_MAX) throw tooManyRanks(name, total);
    return { method, rank: chosen.rank };
  }
  checkOrientation(name, deltas);
  const [rank = 0] = ranks;
  if (ranks.some((other) => other !== rank)) throw unequalRanks(`"${name}"`, ranks, chosen);
  return { method, rank, ...optionsOf(chosen) };
}

/** The methods that are not the sum of all deltas. */
const FACTORED: Readonly<Partial<Record<CombinationMethod, CombinedDeltas['method']>>> = {
  svd: 'svd',
  peft_svd: 'svd',
  peft_linear: 'peft_linear',
  peft_ties: 'peft_ties',
  peft_magnitude_prune: 'peft_magnitude_prune',
};

/** PEFT scales a single adapter, whatever the method is called. */
function factoredMethod({
  method,
  weights,
}: ChosenCombination): CombinedDeltas['method'] | undefined {
  return method !== 'svd' && weights.length === 1 ? undefined : FACTORED[method];
}

/** What PEFT's numbers differ by from those of a method that has its name. */
export function combinationWarnings(
  shards: Plan['shards'],
  { method, weights }: ChosenCombination,
): string[] {
  const isRounded = ({ deltas, from }: PlannedTensor): boolean =>
    deltas !== undefined && from.quantization === undefined && from.dtype !== 'F32';
  if (method !== 'peft_cat' || weights.length === 1) return [];
  if (!shards.some(({ tensors }) => tensors.some(isRounded))) return [];
  return [
    'peft_cat: on 16-bit layers PEFT rounds the combined factors and the delta to 16 bits before it ' +
      'adds it; here the same sum is rounded once, and is the nearer one.',
  ];
}

/**
 * What a plan says of a combination that is not a sum of deltas: of factors that are combined as a
 * whole, or of tensors that several adapters change and not all by adding. Undefined for the others.
 */
export function combinationAsWhole(
  shards: Plan['shards'],
  chosen: ChosenCombination,
): Plan['options']['combination'] {
  const tensors = shards.flatMap((shard) => shard.tensors);
  const method = tensors.find(({ combined }) => combined !== undefined)?.combined?.method;
  if (method === undefined) return tensors.some(isInTurn) ? inTurn(chosen) : undefined;
  const planned = { method, weights: [...chosen.weights] };
  if (method === 'peft_linear') return planned;
  if (method === 'svd') return { ...planned, parameters: { rank: chosen.rank } };
  return { ...planned, parameters: optionsOf(chosen) };
}

/** Whether several adapters change a tensor and one of them by more than adding: their order counts. */
function isInTurn({ deltas = [], changes = [] }: PlannedTensor): boolean {
  const isScaled = deltas.some(({ magnitude }) => magnitude !== undefined);
  const isMore = isScaled || changes.some((change) => !isAdded(change));
  return isMore && new Set([...deltas, ...changes].map(({ adapter }) => adapter)).size > 1;
}

function inTurn({ weights }: ChosenCombination): Plan['options']['combination'] {
  return { method: 'sequential', weights: [...weights] };
}

/** What decides elements; the default is left out. */
function optionsOf({
  density,
  majoritySign,
}: ChosenCombination): Pick<CombinedDeltas, 'density' | 'majoritySign'> {
  return {
    ...(density && { density }),
    ...(majoritySign === 'frequency' && { majoritySign }),
  };
}

/** Bytes that the factors of combined deltas take, in float32. */
export function combinedFactorBytes({ deltas, combined }: PlannedTensor): {
  readonly a: number;
  readonly b: number;
} {
  const [delta] = deltas ?? [];
  if (delta === undefined || combined === undefined) return { a: 0, b: 0 };
  const [inputs, outputs] = [delta.a.shape[1] ?? 0, delta.b?.shape[0] ?? 0];
  return { a: 4 * combined.rank * inputs, b: 4 * outputs * combined.rank };
}

function noFactors(
  name: string,
  change: PlannedChange | undefined,
  { method }: ChosenCombination,
): WeldlineError {
  return new WeldlineError(
    'plan.option-invalid',
    `Adapter "${change?.adapter}" changes "${name}" otherwise than by two factors, and ${method} ` +
      'combines plain LoRA factors only. Use combination.method (--combine) linear or sequential, or ' +
      'merge the adapter by itself. Nothing was written.',
  );
}

function checkKind(
  name: string,
  delta: PlannedDelta,
  { method }: Pick<Combination, 'method'>,
): void {
  const other = Object.keys(delta).find((key) => !FACTOR_KEYS.has(key));
  if (other === undefined) return;
  const what = other === 'magnitude' ? 'scales the rows of (DoRA)' : `changes by its ${other}`;
  throw new WeldlineError(
    'plan.option-invalid',
    `Adapter "${delta.adapter}" ${what} "${name}", and ${method} combines plain LoRA factors ` +
      'only. Use combination.method (--combine) sequential, or merge the adapter by itself. Nothing ' +
      'was written.',
  );
}

/**
 * Of a module that the base has in pieces, singular vectors and largest elements would be those of
 * each piece: other ones than the module's, and other ones than PEFT's.
 */
function checkWhole(
  name: string,
  { adapter, binding }: CombinedPart,
  { method }: ChosenCombination,
): void {
  if (!binding.blocks.has(name)) return;
  throw new WeldlineError(
    'plan.option-invalid',
    `Adapter "${adapter.id}" changes "${name}" by a piece of its factors, because the base cuts this ` +
      `weight in another way, and ${method} combines whole factors only. Use combination.method ` +
      '(--combine) linear or sequential. Nothing was written.',
  );
}

function checkOrientation(name: string, deltas: readonly PlannedDelta[]): void {
  const [first, ...others] = deltas;
  const other = others.find(({ transposed }) => transposed !== first?.transposed);
  if (first === undefined || other === undefined) return;
  throw new WeldlineError(
    'adapter.contradiction',
    `Adapters "${first.adapter}" and "${other.adapter}" disagree on which way round "${name}" is ` +
      'stored (fan_in_fan_out), so their factors cannot be combined. Set it alike in copies of both. ' +
      'Nothing was written.',
  );
}

function tooManyRanks(name: string, total: number): WeldlineError {
  return new WeldlineError(
    'plan.option-invalid',
    `The ranks of all adapters of "${name}" add up to ${total}, and svd takes at most ` +
      `${RANK_SUM_MAX}. Combine fewer adapters, or use linear, which is the exact sum.`,
  );
}
