import type { KernelModule } from '../../kernels/index.ts';
import type { PlannedTensor, PlanPreview } from '../plan/plan.ts';
import { isMerged } from '../plan/planned-tensor.ts';
import type { ReadTensor } from '../verify/factor-rows.ts';
import { compareDeltas } from './compare-deltas.ts';
import { FactorMultiplier } from './factor-products.ts';
import { type AdapterFigures, type PairFigures, PairSums } from './pair-sums.ts';
import { factorA, factorB, plainDeltas } from './plain-delta.ts';
import { layerOf, spreadTensors } from './spread-tensors.ts';

/** Multiplications in all: 2 s with the native kernel, 6 with WebAssembly. */
const PRODUCTS_MAX = 2e10;

/** Each takes some reads, of all adapters. */
const TENSORS_MAX = 2048;

export interface ConflictReport {
  /** Tensors that a plain delta is added to, and how many of them were measured. */
  readonly comparable: number;
  readonly measured: number;
  /** Tensors that adapters change in another way (DoRA, other kinds, replaced tensors or rows). */
  readonly leftOut: number;
  readonly adapters: readonly AdapterFigures[];
  /** Over the whole model; of adapters that have a tensor in common. */
  readonly pairs: readonly PairFigures[];
  readonly layers: readonly { readonly layer: string; readonly pairs: readonly PairFigures[] }[];
  readonly tensors: readonly { readonly name: string; readonly pairs: readonly PairFigures[] }[];
}

/** A report without figures of single tensors. */
export type ConflictSummary = Omit<ConflictReport, 'tensors'>;

export function summarizeConflicts({ tensors: _, ...summary }: ConflictReport): ConflictSummary {
  return summary;
}

/**
 * Compares what several adapters add to a base, from their factors alone and before anything is
 * merged: direction, size, and signs of sampled elements. Where comparing all tensors would take
 * long, they are a sample too. All choices are deterministic.
 *
 * @param read of the adapters; no base is read
 * @returns undefined for one adapter
 */
export async function measureConflicts(
  plan: Pick<PlanPreview, 'shards' | 'inputs'>,
  read: ReadTensor,
  kernel: KernelModule,
): Promise<ConflictReport | undefined> {
  const ids = plan.inputs.map(({ id }) => id).filter((id) => id !== 'base');
  if (ids.length < 2) return undefined;
  const changed = plan.shards.flatMap(({ tensors }) => tensors).filter(isChanged);
  const comparable = changed.filter((tensor) => plainDeltas(tensor).length > 0);
  const limits = { tensorsMax: TENSORS_MAX, costMax: PRODUCTS_MAX };
  const chosen = spreadTensors(comparable, productsOf, limits);
  const multiplier = new FactorMultiplier(
    kernel,
    ranksMax(chosen.map(({ tensor }) => tensor)),
    read,
  );
  const overall = new PairSums(ids);
  const layers = new Map<string, PairSums>();
  const tensors = new Map<string, PairSums>();
  for (const { tensor, standsFor } of chosen) {
    const layer = layerOf(tensor.name);
    const ofLayer = layers.get(layer) ?? new PairSums(ids);
    layers.set(layer, ofLayer);
    const ofTensor = new PairSums(ids);
    tensors.set(tensor.name, ofTensor);
    const compared = await compareDeltas(tensor, ids, multiplier);
    for (const sums of [overall, ofLayer, ofTensor]) sums.addTensor(compared, standsFor);
  }
  return {
    comparable: comparable.length,
    measured: chosen.length,
    leftOut: changed.filter((tensor) => !isOnlyPlain(tensor)).length,
    adapters: overall.adapters(),
    pairs: overall.pairs(),
    layers: sharedOf(layers).map(([layer, pairs]) => ({ layer, pairs })),
    tensors: sharedOf(tensors).map(([name, pairs]) => ({ name, pairs })),
  };
}

/** Whether an adapter has a part in it. */
function isChanged(tensor: PlannedTensor): boolean {
  return isMerged(tensor) || tensor.tokens !== undefined || tensor.from.input !== 'base';
}

function isOnlyPlain(tensor: PlannedTensor): boolean {
  const { deltas, changes, from, tokens } = tensor;
  const isOnlyAdded = tokens === undefined && changes === undefined && from.input === 'base';
  return isOnlyAdded && plainDeltas(tensor).length === deltas?.length;
}

function sharedOf(
  sums: ReadonlyMap<string, PairSums>,
): readonly (readonly [string, readonly PairFigures[]])[] {
  return [...sums]
    .map(([name, sum]) => [name, sum.pairs()] as const)
    .filter(([, pairs]) => pairs.length > 0);
}

function productsOf(tensor: PlannedTensor): number {
  const deltas = plainDeltas(tensor);
  let products = 0;
  for (const [j, delta] of deltas.entries()) {
    const extents = factorA(delta).extent + (factorB(delta)?.extent ?? 0);
    for (const other of deltas.slice(0, j + 1)) products += delta.rank * other.rank * extents;
  }
  return products;
}

function ranksMax(tensors: readonly PlannedTensor[]): { one: number; sum: number } {
  let [one, sum] = [1, 1];
  for (const tensor of tensors) {
    const ranks = plainDeltas(tensor).map(({ rank }) => rank);
    one = Math.max(one, ...ranks);
    sum = Math.max(
      sum,
      ranks.reduce((total, rank) => total + rank, 0),
    );
  }
  return { one, sum };
}
