import { loadElement, storeElement } from '../../kernels/index.ts';
import { bandSteps, needsColumnNorms } from '../merge/bands/band-steps.ts';
import { isRandom } from '../merge/bands/combine-rows.ts';
import { workOf } from '../merge/tensor-work.ts';
import type { PlannedTensor, PlanPreview } from '../plan/plan.ts';
import { elementCount, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';
import type { ReadTensor } from '../verify/factor-rows.ts';
import { type ExactRow, exactRows } from '../verify/sample-rows.ts';
import { spreadIndices, spreadTensors } from './spread-tensors.ts';

/** Rows that are measured of a tensor: 4 of a few thousand columns hold its retention to 1 %. */
const ROWS_PER_TENSOR = 4;

/** Of a base on this machine's disk, and of one of which every row is a request over a network. */
const TENSORS_MAX = { local: 256, remote: 32 };

/** Elements of right factors that are read: about a second of work. */
const FACTOR_ELEMENTS_MAX = 48_000_000;

export interface TensorRetention {
  readonly name: string;
  readonly retention: number;
  /** ‖d‖ over the norm of the weight. */
  readonly relativeSize: number;
}

export interface RetentionReport {
  /** Of all that is added, weighted by its energy; null where nothing is. */
  readonly overall: number | null;
  /**
   * ‖d‖ / ‖W‖: how large all that is added is beside the weights that it is added to. Null where
   * nothing is.
   */
  readonly relativeSize: number | null;
  /** Tensors that deltas are added to, and how many of them were measured. */
  readonly merged: number;
  readonly measured: number;
  /** In the order of the plan; a tensor whose delta is zero has none. */
  readonly tensors: readonly TensorRetention[];
}

/** A report without figures of single tensors, but for those that keep least. */
export type RetentionSummary = Omit<RetentionReport, 'tensors'> & {
  /** The worst first. */
  readonly worst: readonly TensorRetention[];
};

/** ‖W‖², ‖d‖² and ‖δ − d‖², of sampled rows. */
interface Energies {
  readonly source: number;
  readonly delta: number;
  readonly error: number;
}

/**
 * How much of what is added to a base survives the rounding into the dtype of the output.
 *
 * With d = exact result − source, both before any rounding, and δ = round(exact result) −
 * round(source), what a user of the merged model gets, the retention is `1 − ‖δ − d‖² / ‖d‖²`: the
 * share of the delta that is reproduced. 1 is all of it. 0 is what a merge without the adapter
 * would have, and below 0 the rounding does more than the delta. This, and not the ratio of norms
 * ‖δ‖ / ‖d‖: where d is far below a rounding step, most elements do not move and a few jump by a
 * whole step, so that the ratio comes out near or above 1 while the delta is destroyed.
 *
 * Measured on sampled rows in float64, by the road of the verification (`exactRows`). The source of
 * a quantised weight is what it dequantises to. The choice of tensors and rows is deterministic.
 *
 * @param read of all inputs, the base too: some rows of each measured tensor
 */
export async function measureRetention(
  plan: Pick<PlanPreview, 'shards'>,
  read: ReadTensor,
  base: 'local' | 'remote',
): Promise<RetentionReport> {
  const merged = plan.shards.flatMap(({ tensors }) => tensors).filter(isMerged);
  const measurable = merged.filter(
    (tensor) => isMeasurable(tensor) && (base === 'local' || !needsWholeBase(tensor)),
  );
  const limits = { tensorsMax: TENSORS_MAX[base], costMax: FACTOR_ELEMENTS_MAX };
  const chosen = spreadTensors(measurable, factorElements, limits);
  const tensors: TensorRetention[] = [];
  let [source, delta, error] = [0, 0, 0];
  for (const { tensor, standsFor } of chosen) {
    const count = elementCount(tensor.shape) / columnsOf(tensor);
    const rows = spreadIndices(tensor.name, count, ROWS_PER_TENSOR);
    const energies = energiesOf(tensor, await exactRows(tensor, rows, read));
    // Also not for a result that is infinite or NaN, which a merge refuses by itself.
    if (!(energies.delta > 0 && Number.isFinite(energies.error))) continue;
    const weight = (standsFor * count) / rows.length;
    source += weight * energies.source;
    delta += weight * energies.delta;
    error += weight * energies.error;
    tensors.push({
      name: tensor.name,
      retention: 1 - energies.error / energies.delta,
      relativeSize: Math.sqrt(energies.delta / energies.source),
    });
  }
  return {
    overall: tensors.length === 0 ? null : 1 - error / delta,
    relativeSize: tensors.length === 0 ? null : Math.sqrt(delta / source),
    merged: merged.length,
    measured: chosen.length,
    tensors,
  };
}

const WORST_COUNT = 10;

export function summarizeRetention({ tensors, ...summary }: RetentionReport): RetentionSummary {
  const ascending = tensors.toSorted((one, other) => one.retention - other.retention);
  return { ...summary, worst: ascending.slice(0, WORST_COUNT) };
}

function isMerged(tensor: PlannedTensor): boolean {
  return !['copy', 'cast', 'dequantize'].includes(workOf(tensor)) && tensor.byteLength > 0;
}

/**
 * What stays of deltas that are thinned out to their largest elements, and which directions are the
 * largest of a sum, takes a pass over all of a tensor: too long for a plan.
 */
function isMeasurable({ combination, combined }: PlannedTensor): boolean {
  return combined === undefined && (combination === undefined || isRandom(combination));
}

/** Norms of columns are of all rows, which over a network would be a download. */
function needsWholeBase(tensor: PlannedTensor): boolean {
  return bandSteps(tensor)?.some(needsColumnNorms) === true;
}

function factorElements(tensor: PlannedTensor): number {
  const rank = (tensor.deltas ?? []).reduce((sum, delta) => sum + delta.rank, 1);
  return rank * columnsOf(tensor);
}

function columnsOf({ shape }: PlannedTensor): number {
  return shape.at(-1) ?? 1;
}

function energiesOf(tensor: PlannedTensor, rows: readonly ExactRow[]): Energies {
  const round = roundingTo(tensor.dtype as MergeDtype);
  let [energy, delta, error] = [0, 0, 0];
  for (const { source, exact } of rows) {
    for (let column = 0; column < exact.length; column++) {
      const d = exact[column]! - source[column]!;
      energy += source[column]! ** 2;
      delta += d * d;
      const distance = round(exact[column]!) - round(source[column]!) - d;
      error += distance * distance;
    }
  }
  return { source: energy, delta, error };
}

function roundingTo(dtype: MergeDtype): (value: number) => number {
  const kernelDtype = KERNEL_DTYPE[dtype];
  const stored = new DataView(new ArrayBuffer(4));
  return (value) => {
    storeElement(stored, 0, kernelDtype, value);
    return loadElement(stored, 0, kernelDtype);
  };
}
