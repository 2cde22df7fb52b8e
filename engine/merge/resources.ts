import { availableParallelism } from 'node:os';
import { type ArenaSpec, arenaBytes } from '../../kernels/index.ts';
import { WeldlineError } from '../errors.ts';
import { combinationBytes } from '../factors/combine-factors.ts';
import type { Plan, PlannedTensor } from '../plan/plan.ts';
import { type BandArenas, bandArenas, bandArenasBytes, windowArena } from './arena-sizes.ts';
import { sharedNormsBytes } from './bands/column-norms.ts';
import { BLOCK_BYTES, blockCounts } from './block-reader.ts';
import { combinedShard } from './combined-shard.ts';
import { DEQUANTIZER_BYTES } from './readers/dequantizer.ts';
import { unitsOf, workOf } from './tensor-work.ts';
import { PAGE_BYTES } from './windows.ts';

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

/** More threads than this only wait for the disk. */
const THREADS_MAX = 8;

/** While some threads wait for the disk, or for their window's turn to be hashed, others compute. */
const WAITING_THREADS = 2;

/** Parts of a shard that is sent away: one is filled while others are on their way. */
const PARTS = { least: 2, most: 5 };

/**
 * Sockets, libraries, and bytes that were taken from them and not collected yet: 55 to 85 MB were measured on
 * Node 24, by the moods of its collector.
 */
const NETWORK_BYTES = 100_000_000;

export const MEMORY_BUDGET_BYTES_DEFAULT = 200_000_000;

/** Where something is streamed: what is on its way over a network is in memory, not on a disk. */
const STREAMING_BUDGET_BYTES_DEFAULT = 400_000_000;

/** What a merge will use. Does not influence the output's bytes. */
export interface MergeResources {
  readonly threads: number;
  readonly windowBytes: number;
  readonly arena: ArenaSpec;
  /** The kernels beside it for what is made in bands, if anything is. */
  readonly bands: BandArenas | undefined;
  /** Threads that combine factors, before the windows are made. */
  readonly factorThreads: number;
  /** Where in the kernel's output area a window begins: rows across its edge start before. */
  readonly windowOffset: number;
  /** Expected peak of the process, in bytes. */
  readonly memoryBytes: number;
  /** What is kept in memory of what goes over a network; absent where nothing does. */
  readonly streaming?: StreamingBuffers | undefined;
}

export interface StreamingBuffers {
  /** Blocks of streamed inputs: see `block-reader.ts`. */
  readonly blocks: number;
  /** Parts of a shard that is sent away, the one that is being filled included. */
  readonly parts: number;
}

/** What of a plan decides: a preview has it too. */
type PlannedShards = Pick<Plan, 'shards'>;

export interface ResourceLimits {
  /** Default: two more than there are processors, at most 8. */
  readonly threads?: number | undefined;
  /** Default: 200 MB, or 400 MB where something is streamed. */
  readonly memoryBudgetBytes?: number | undefined;
  /** Whether an input is streamed. */
  readonly streamsInput?: boolean | undefined;
  /** Bytes of the parts in which shards are sent away, if they are. */
  readonly partBytes?: number | undefined;
}

/**
 * Chooses threads and window size: all the threads allowed with windows of 4 MiB; if that is over
 * the memory budget, smaller windows down to 256 KiB, then fewer threads.
 *
 * @throws WeldlineError `plan.budget-too-small` if one thread with the smallest windows is over it
 */
export function chooseResources(plan: PlannedShards, limits: ResourceLimits): MergeResources {
  const wanted = limits.threads ?? availableParallelism() + WAITING_THREADS;
  const memoryBudgetBytes = limits.memoryBudgetBytes ?? defaultBudget(limits);
  let memoryBytes = 0;
  for (let threads = Math.min(wanted, THREADS_MAX); threads >= 1; threads--) {
    for (let window = WINDOW_BYTES_MAX; window >= WINDOW_BYTES_MIN; window /= 2) {
      const least = streamingBuffers(threads, limits, 0);
      const forBuffers = bufferBytes(least, limits);
      const budget = memoryBudgetBytes - forBuffers;
      const chosen = resourcesFor(plan, threads, window, budget);
      memoryBytes = chosen.memoryBytes + forBuffers;
      if (memoryBytes > memoryBudgetBytes) continue;
      if (least === undefined) return chosen;
      const streaming = streamingBuffers(threads, limits, budget - chosen.memoryBytes);
      const bytes = chosen.memoryBytes + bufferBytes(streaming, limits);
      return { ...chosen, memoryBytes: bytes, streaming };
    }
  }
  throw new WeldlineError(
    'plan.budget-too-small',
    `This merge needs ${megabytes(memoryBytes)} with one thread and the smallest windows; the ` +
      `memory budget is ${megabytes(memoryBudgetBytes)}. Raise memory_budget ` +
      '(--memory-budget).',
  );
}

function defaultBudget({ streamsInput = false, partBytes }: ResourceLimits): number {
  const isStreaming = streamsInput || partBytes !== undefined;
  return isStreaming ? STREAMING_BUDGET_BYTES_DEFAULT : MEMORY_BUDGET_BYTES_DEFAULT;
}

/**
 * The buffers for what goes over a network: the least that works, and more as far as there is memory.
 * @param spareBytes what may be taken beside the least
 */
function streamingBuffers(
  threads: number,
  { streamsInput = false, partBytes }: ResourceLimits,
  spareBytes: number,
): StreamingBuffers | undefined {
  if (!streamsInput && partBytes === undefined) return undefined;
  const blocks = streamsInput ? blockCounts(threads) : { least: 0, most: 0 };
  const parts = partBytes === undefined ? { least: 0, most: 0 } : PARTS;
  const size = partBytes ?? 1;
  // Of what is to spare, half for each where both are wanted.
  const share = streamsInput && partBytes !== undefined ? spareBytes / 2 : spareBytes;
  const more = (bytes: number): number => Math.max(0, Math.floor(share / bytes));
  return {
    blocks: Math.min(blocks.most, blocks.least + more(BLOCK_BYTES)),
    parts: Math.min(parts.most, parts.least + more(size)),
  };
}

function bufferBytes(
  buffers: StreamingBuffers | undefined,
  { partBytes = 0 }: ResourceLimits,
): number {
  if (buffers === undefined) return 0;
  return NETWORK_BYTES + buffers.blocks * BLOCK_BYTES + buffers.parts * partBytes;
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6)} MB`;
}

/**
 * What a merge with these threads and windows takes.
 * @param budgetBytes decides how many threads combine factors; always at least one
 */
export function resourcesFor(
  plan: PlannedShards,
  threads: number,
  windowBytes: number,
  budgetBytes = Number.POSITIVE_INFINITY,
): MergeResources {
  const combining = combiningBytes(plan);
  const affordable = Math.floor((budgetBytes - PROCESS_BYTES) / (THREAD_BYTES + combining));
  const factorThreads = Math.max(1, Math.min(threads, affordable));
  const tensors = plan.shards.flatMap((shard) => combinedShard(shard, '').tensors);
  const worked = tensors.filter((tensor) => workOf(tensor) !== 'copy');
  const beside = worked.map((tensor) => unitsOf(tensor).outputBytes);
  const windowOffset = roundUpToPage(beside.reduce((a, b) => Math.max(a, b), 0));
  const outputBytes = windowBytes + 2 * windowOffset;
  // What is made in bands is only put into the window.
  const banded = worked.filter((tensor) => workOf(tensor) === 'band');
  const others = worked.filter((tensor) => workOf(tensor) !== 'band');
  const arena = windowArena(others, windowBytes, outputBytes);
  const bands = bandArenas(banded);
  const threadBytes =
    THREAD_BYTES +
    arenaBytes(arena) +
    dequantizerBytes(others) +
    (bands === undefined ? 0 : bandArenasBytes(bands) + dequantizerBytes(banded));
  const combiningTotal = combining === 0 ? 0 : factorThreads * (THREAD_BYTES + combining);
  const normsBytes = Math.max(0, ...plan.shards.map(sharedNormsBytes));
  // One after the other.
  const memoryBytes = PROCESS_BYTES + Math.max(normsBytes + threads * threadBytes, combiningTotal);
  return { threads, windowBytes, arena, bands, factorThreads, windowOffset, memoryBytes };
}

/** Each kernel has a dequantizer of its own, once there is a tensor for it. */
function dequantizerBytes(tensors: readonly PlannedTensor[]): number {
  const isNeeded = tensors.some(({ from }) => from.quantization !== undefined);
  return isNeeded ? DEQUANTIZER_BYTES : 0;
}

/** The most that combining the factors of one tensor takes. */
function combiningBytes({ shards }: PlannedShards): number {
  const bytes = shards.flatMap(({ tensors }) => tensors.map(combinationBytes));
  return bytes.reduce((a, b) => Math.max(a, b), 0);
}

function roundUpToPage(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
