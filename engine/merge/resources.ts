import {
  type ArenaSpec,
  arenaBytes,
  packedLeftBytes,
  packedRightBytes,
} from '../../kernels/index.ts';
import { WeldlineError } from '../errors.ts';
import type { Plan, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { unitsOf, unitsPerChunk, workOf } from './chunks.ts';

/**
 * What the process needs beside its threads: Node, the planner's headers, the libraries. Measured on
 * the published package; a checkout takes 80 MB more, for Node's compiler of types.
 */
const PROCESS_BYTES = 130_000_000;

/** A worker thread's isolate and stack, measured on Node 24. */
const THREAD_BYTES = 12_000_000;

/** The rule of thumb of notes and benchmarks: large enough to stream, small enough for a cache. */
const CHUNK_BYTES_MAX = 4 * 1024 * 1024;
const CHUNK_BYTES_MIN = 256 * 1024;

/** Factors are staged in pieces of this size, or of one row if a row is longer. */
const FACTOR_BYTES_MAX = 1024 * 1024;

/** More threads than this only wait for the disk. */
const THREADS_MAX = 8;

export const MEMORY_BUDGET_BYTES_DEFAULT = 200_000_000;

/** What a merge will use. Does not influence the output's bytes. */
export interface MergeResources {
  readonly threads: number;
  readonly chunkBytesMax: number;
  readonly arena: ArenaSpec;
  /** Expected peak of the process, in bytes. */
  readonly memoryBytes: number;
}

export interface ResourceLimits {
  /** Processors that may be used. */
  readonly threads: number;
  readonly memoryBudgetBytes: number;
}

/**
 * Chooses threads and chunk size: all the threads allowed (at most 8) with 4 MiB chunks; if that is
 * over the memory budget, smaller chunks down to 256 KiB, then fewer threads.
 *
 * @throws WeldlineError `plan.budget-too-small` if one thread with the smallest chunks is over it
 */
export function chooseResources(
  plan: Pick<Plan, 'shards'>,
  limits: ResourceLimits,
): MergeResources {
  let smallest: MergeResources | undefined;
  for (let threads = Math.min(limits.threads, THREADS_MAX); threads >= 1; threads--) {
    for (let chunk = CHUNK_BYTES_MAX; chunk >= CHUNK_BYTES_MIN; chunk /= 2) {
      const arena = arenaFor(plan, chunk);
      const memoryBytes = PROCESS_BYTES + threads * (THREAD_BYTES + arenaBytes(arena));
      smallest = { threads, chunkBytesMax: chunk, arena, memoryBytes };
      if (memoryBytes <= limits.memoryBudgetBytes) return smallest;
    }
  }
  throw new WeldlineError(
    'plan.budget-too-small',
    `This merge needs ${megabytes(smallest?.memoryBytes ?? 0)} with one thread and the smallest ` +
      `chunks; the memory budget is ${megabytes(limits.memoryBudgetBytes)}. Raise memory_budget ` +
      '(--memory-budget).',
  );
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6)} MB`;
}

/** The largest of each area over all tensors of the plan. */
function arenaFor(plan: Pick<Plan, 'shards'>, chunkBytesMax: number): ArenaSpec {
  const spec = {
    inputBytesMax: 1,
    outputBytesMax: 0,
    factorBytesMax: 1,
    leftBytesMax: 1,
    rightBytesMax: 1,
  };
  const grow = (area: keyof typeof spec, bytes: number): void => {
    spec[area] = Math.max(spec[area], bytes);
  };
  for (const tensor of plan.shards.flatMap((shard) => shard.tensors)) {
    const units = unitsOf(tensor);
    const count = unitsPerChunk(units, chunkBytesMax);
    grow('inputBytesMax', count * units.inputBytes);
    if (units.inputBytes !== units.outputBytes) grow('outputBytesMax', count * units.outputBytes);
    if (workOf(tensor) === 'delta') growForDelta(tensor, count, grow);
  }
  // One casting tensor moves the output out of place for all; it must then hold every band.
  if (spec.outputBytesMax > 0) grow('outputBytesMax', spec.inputBytesMax);
  return spec;
}

function growForDelta(
  tensor: PlannedTensor,
  rows: number,
  grow: (area: keyof ArenaSpec, bytes: number) => void,
): void {
  const { delta, shape } = tensor;
  if (delta === undefined) return;
  const columns = shape[1] ?? 0;
  grow('leftBytesMax', packedLeftBytes(rows, delta.rank));
  grow('rightBytesMax', packedRightBytes(columns, delta.rank));
  const [left, right] = delta.transposed ? [delta.a, delta.b] : [delta.b, delta.a];
  // A band of the left factor is staged at once, the right factor row by row.
  grow('factorBytesMax', rows * delta.rank * elementBytes(left));
  grow('factorBytesMax', rowsPerPiece(right) * rowBytes(right));
}

/** Bytes of one row of a factor as stored. */
export function rowBytes(factor: TensorReference): number {
  return factor.byteLength / (factor.shape[0] ?? 1);
}

export function elementBytes(factor: TensorReference): number {
  return rowBytes(factor) / (factor.shape[1] ?? 1);
}

/** Stored rows of the right factor that are staged at once. */
export function rowsPerPiece(factor: TensorReference): number {
  const rows = Math.floor(FACTOR_BYTES_MAX / rowBytes(factor));
  return Math.max(1, Math.min(factor.shape[0] ?? 1, rows));
}
