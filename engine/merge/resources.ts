import { availableParallelism } from 'node:os';
import {
  type ArenaSpec,
  arenaBytes,
  packedLeftBytes,
  packedRightBytes,
} from '../../kernels/index.ts';
import { WeldlineError } from '../errors.ts';
import type { Plan, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { matrixOf, unitsOf, workOf } from './tensor-work.ts';
import { PAGE_BYTES, unitsPerWindow } from './windows.ts';

/**
 * What the process needs beside its threads: Node, the planner's headers, the libraries. Measured on
 * the published package; a checkout takes 80 MB more, for Node's compiler of types.
 */
const PROCESS_BYTES = 95_000_000;

/** A worker thread's isolate and stack, measured on Node 24. */
const THREAD_BYTES = 12_000_000;

/** Large enough to stream to a disk, small enough for a cache; measured in bench/. */
const WINDOW_BYTES_MAX = 4 * 1024 * 1024;
const WINDOW_BYTES_MIN = 256 * 1024;

/** Factors are staged in pieces of this size, or of one row if a row is longer. */
const FACTOR_BYTES_MAX = 1024 * 1024;

const FLOAT32_BYTES = 4;

/** DoRA takes bands of rows of this size in float32, or of one row if a row is longer. */
const DORA_BAND_BYTES_MAX = 512 * 1024;

/** More threads than this only wait for the disk. */
const THREADS_MAX = 8;

/** While some threads wait for the disk, or for their window's turn to be hashed, others compute. */
const WAITING_THREADS = 2;

export const MEMORY_BUDGET_BYTES_DEFAULT = 200_000_000;

/** What a merge will use. Does not influence the output's bytes. */
export interface MergeResources {
  readonly threads: number;
  readonly windowBytes: number;
  readonly arena: ArenaSpec;
  /** The second kernel that DoRA takes, if there is any. */
  readonly dora: ArenaSpec | undefined;
  /** Where in the kernel's output area a window begins: rows across its edge start before. */
  readonly windowOffset: number;
  /** Expected peak of the process, in bytes. */
  readonly memoryBytes: number;
}

/** What of a plan decides: a preview has it too. */
type PlannedShards = Pick<Plan, 'shards'>;

export interface ResourceLimits {
  /** Default: two more than there are processors, at most 8. */
  readonly threads?: number | undefined;
  readonly memoryBudgetBytes: number;
}

/**
 * Chooses threads and window size: all the threads allowed with windows of 4 MiB; if that is over
 * the memory budget, smaller windows down to 256 KiB, then fewer threads.
 *
 * @throws WeldlineError `plan.budget-too-small` if one thread with the smallest windows is over it
 */
export function chooseResources(plan: PlannedShards, limits: ResourceLimits): MergeResources {
  const wanted = limits.threads ?? availableParallelism() + WAITING_THREADS;
  let memoryBytes = 0;
  for (let threads = Math.min(wanted, THREADS_MAX); threads >= 1; threads--) {
    for (let window = WINDOW_BYTES_MAX; window >= WINDOW_BYTES_MIN; window /= 2) {
      const chosen = resourcesFor(plan, threads, window);
      memoryBytes = chosen.memoryBytes;
      if (memoryBytes <= limits.memoryBudgetBytes) return chosen;
    }
  }
  throw new WeldlineError(
    'plan.budget-too-small',
    `This merge needs ${megabytes(memoryBytes)} with one thread and the smallest windows; the ` +
      `memory budget is ${megabytes(limits.memoryBudgetBytes)}. Raise memory_budget ` +
      '(--memory-budget).',
  );
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6)} MB`;
}

/** What a merge with these threads and windows takes. */
export function resourcesFor(
  plan: PlannedShards,
  threads: number,
  windowBytes: number,
): MergeResources {
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  const worked = tensors.filter((tensor) => workOf(tensor) !== 'copy');
  const beside = worked.map((tensor) => unitsOf(tensor).outputBytes);
  const windowOffset = roundUpToPage(beside.reduce((a, b) => Math.max(a, b), 0));
  const outputBytes = windowBytes + 2 * windowOffset;
  const isInPlace = worked.every((tensor) => {
    if (workOf(tensor) === 'dora') return true;
    const { inputBytes, outputBytes: bytes } = unitsOf(tensor);
    return inputBytes === bytes;
  });
  const spec = {
    inputBytesMax: isInPlace ? outputBytes : 1,
    outputBytesMax: isInPlace ? 0 : outputBytes,
    factorBytesMax: 1,
    leftBytesMax: 1,
    rightBytesMax: 1,
  };
  const grow = (area: keyof typeof spec, bytes: number): void => {
    spec[area] = Math.max(spec[area], bytes);
  };
  for (const tensor of worked) {
    if (workOf(tensor) === 'dora') continue;
    const units = unitsOf(tensor);
    const count = unitsPerWindow(units, windowBytes);
    if (!isInPlace) grow('inputBytesMax', count * units.inputBytes);
    growForDelta(tensor, count, grow);
  }
  const dora = doraArena(worked.filter((tensor) => workOf(tensor) === 'dora'));
  const threadBytes = THREAD_BYTES + arenaBytes(spec) + (dora === undefined ? 0 : arenaBytes(dora));
  const memoryBytes = PROCESS_BYTES + threads * threadBytes;
  return { threads, windowBytes, arena: spec, dora, windowOffset, memoryBytes };
}

/** Memory of the kernel that works a band of rows out in float32, and then casts it. */
function doraArena(tensors: readonly PlannedTensor[]): ArenaSpec | undefined {
  if (tensors.length === 0) return undefined;
  const spec = {
    inputBytesMax: 1,
    outputBytesMax: 1,
    factorBytesMax: 1,
    leftBytesMax: 1,
    rightBytesMax: 1,
  };
  const grow = (area: keyof typeof spec, bytes: number): void => {
    spec[area] = Math.max(spec[area], bytes);
  };
  for (const tensor of tensors) {
    const rows = doraBandRows(tensor);
    grow('inputBytesMax', rows * matrixOf(tensor).columns * FLOAT32_BYTES);
    grow('outputBytesMax', rows * matrixOf(tensor).columns * FLOAT32_BYTES);
    growForDelta(tensor, rows, grow);
  }
  return spec;
}

/** Rows that DoRA works out at once. */
export function doraBandRows(tensor: PlannedTensor): number {
  const { rows, columns } = matrixOf(tensor);
  const rowsMax = Math.floor(DORA_BAND_BYTES_MAX / (columns * FLOAT32_BYTES));
  return Math.max(1, Math.min(rows, rowsMax));
}

function roundUpToPage(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

function growForDelta(
  tensor: PlannedTensor,
  rows: number,
  grow: (area: 'factorBytesMax' | 'leftBytesMax' | 'rightBytesMax', bytes: number) => void,
): void {
  const { delta } = tensor;
  if (delta === undefined) return;
  grow('leftBytesMax', packedLeftBytes(rows, delta.rank));
  grow('rightBytesMax', packedRightBytes(matrixOf(tensor).columns, delta.rank));
  const { a, b } = delta;
  const [left, right] = delta.transposed && b !== undefined ? [a, b] : [b, a];
  // A band of the left factor is staged at once, the right factor row by row.
  const leftBytes = left === undefined ? FLOAT32_BYTES : elementBytes(left);
  grow('factorBytesMax', rows * delta.rank * leftBytes);
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
