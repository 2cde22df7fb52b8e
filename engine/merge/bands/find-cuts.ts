import type { ArenaSpec, KernelModule } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { PlannedDelta, PlannedTensor } from '../../plan/plan.ts';
import { elementCount } from '../../safetensors/dtype.ts';
import { bandRows } from '../arena-sizes.ts';
import { createControl } from '../merge-control.ts';
import { runThreads, threadUrl } from '../run-threads.ts';
import { matrixOf } from '../tensor-work.ts';
import { isRandom } from './combine-rows.ts';
import type { CutMessage } from './cut-worker.ts';
import type { DenseDeltas } from './dense-deltas.ts';
import type { Cut, DeltaRows } from './find-cut.ts';

/** Of each tensor, by its name: the cut of each of its deltas. */
export type Cuts = ReadonlyMap<string, readonly Cut[]>;

/** A thread takes longer to start than it takes to count fewer elements than these. */
const THREAD_ELEMENTS = 16 * 1024 * 1024;

/** A delta whose cut is wanted. */
export interface CutJob {
  readonly tensor: PlannedTensor;
  readonly delta: PlannedDelta;
  /** How many of its elements stay. */
  readonly keep: number;
}

export interface FindCutsOptions {
  readonly tensors: readonly PlannedTensor[];
  readonly module: KernelModule;
  /** Of the kernel that makes rows of a delta; there must be one if there is something to find. */
  readonly arena: ArenaSpec | undefined;
  readonly threads: number;
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** Whether each cut is proven, too. */
  readonly isChecked?: boolean;
  readonly onFound?: (tensor: PlannedTensor) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Finds what stays of deltas that are thinned out to their largest elements, once for each.
 *
 * @throws WeldlineError what reading throws; the signal's reason if it is aborted
 */
export async function findCuts(options: FindCutsOptions): Promise<Cuts> {
  const { module, arena, roots, isChecked = false, threads, signal } = options;
  // The largest first, so that no thread is left alone with it at the end.
  const jobs = options.tensors.flatMap(cutJobs).sort((a, b) => sizeOf(b) - sizeOf(a));
  const elements = jobs.reduce((sum, job) => sum + sizeOf(job), 0);
  const cuts = new Map<string, Cut[]>();
  if (jobs.length === 0) return cuts;
  assert(arena !== undefined, 'there is no memory for dense deltas');
  await runThreads({
    url: threadUrl('bands/cut-worker'),
    data: { module, arena, jobs, roots, isChecked, control: createControl() },
    count: Math.min(threads, jobs.length, Math.ceil(elements / THREAD_ELEMENTS)),
    onMessage: ({ index, cut }: CutMessage) => {
      const { tensor, delta } = jobs[index] as CutJob;
      const found = cuts.get(tensor.name) ?? [];
      found[tensor.deltas?.indexOf(delta) ?? 0] = cut;
      cuts.set(tensor.name, found);
      options.onFound?.(tensor);
    },
    signal,
  });
  return cuts;
}

/** The deltas of a tensor whose largest elements are wanted. */
function cutJobs(tensor: PlannedTensor): CutJob[] {
  const { combination, deltas = [] } = tensor;
  if (combination === undefined || isRandom(combination)) return [];
  const count = elementCount(tensor.shape);
  return deltas.map((delta, index) => ({
    tensor,
    delta,
    keep: Math.floor((combination.parts[index]?.density ?? 1) * count),
  }));
}

/** A delta by its rows, made in the first slot. */
export function deltaRows(dense: DenseDeltas, { tensor, delta }: CutJob): DeltaRows {
  const { rows, columns } = matrixOf(tensor);
  return {
    rows,
    columns,
    rowsMax: bandRows(tensor),
    make: (begin, count) => dense.rows(0, delta, { begin, rows: count, columns }).values,
  };
}

function sizeOf({ tensor }: CutJob): number {
  return elementCount(tensor.shape);
}
