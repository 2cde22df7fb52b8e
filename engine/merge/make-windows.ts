import type { PlannedShard, PlannedTensor } from '../plan/plan.ts';
import { layoutFile } from '../safetensors/layout.ts';
import { createNorms } from './bands/column-norms.ts';
import { type Cuts, findCuts } from './bands/find-cuts.ts';
import { BlockReader, blockCounts } from './block-reader.ts';
import { runMergeThreads } from './merge-threads.ts';
import type { WindowMessage } from './merge-worker.ts';
import { type MergeShardOptions, reportProgress } from './shard-options.ts';
import { referencesOf } from './tensor-work.ts';
import type { WindowCut } from './windows.ts';

export interface MakeWindows {
  readonly windows: WindowCut;
  /** See `merge-control.ts`. */
  readonly control: SharedArrayBuffer;
  /** Where threads write what they made; without it somebody takes it from their memory. */
  readonly outputPath?: string | undefined;
  /** Whether somebody looks at each window before its memory is used again. */
  readonly isHashed: boolean;
  /** Gets what the threads say of their windows, in any order. */
  readonly onWindow: (message: WindowMessage) => void;
}

/** Has worker threads make all windows of a shard that are still to be made. */
export async function makeWindows(
  options: MergeShardOptions,
  { windows, control, outputPath, isHashed, onWindow }: MakeWindows,
): Promise<void> {
  const { shard, resources, kernel, roots, streamed = {}, signal } = options;
  const { begin } = windows;
  const data = {
    module: kernel,
    arena: resources.arena,
    bands: resources.bands,
    cuts: await cutsFrom(options, begin),
    norms: createNorms(shard),
    windowOffset: resources.windowOffset,
    shard,
    header: layoutFile(shard.tensors).header,
    windows,
    roots,
    streamed: Object.keys(streamed),
    outputPath,
    control,
    isHashed,
  };
  const reader = openReader(options, begin);
  try {
    await runMergeThreads(data, resources.threads, onWindow, reader, signal);
  } finally {
    await reader?.close();
  }
}

/** What reads streamed inputs for the threads, from the first tensor that is still to be made. */
function openReader(options: MergeShardOptions, begin: number): BlockReader | undefined {
  const { shard, streamed, resources } = options;
  if (streamed === undefined) return undefined;
  const { threads } = resources;
  const blocksMax = resources.streaming?.blocks ?? blockCounts(threads).least;
  const order = tensorsFrom(shard, begin).flatMap(referencesOf);
  return new BlockReader(streamed, order, { blocksMax, threads });
}

/**
 * Of all tensors that are still to be made, at least in part. Takes no more memory than the merge
 * that follows: a thread has one kernel for a delta, where that has several and a window.
 */
function cutsFrom(options: MergeShardOptions, begin: number): Promise<Cuts> {
  const { shard, resources, kernel: module, roots, signal } = options;
  return findCuts({
    tensors: tensorsFrom(shard, begin),
    module,
    arena: resources.bands?.dense,
    threads: resources.threads,
    roots,
    onFound: ({ name }) => reportProgress(options, begin, name),
    signal,
  });
}

function tensorsFrom({ tensors }: PlannedShard, begin: number): readonly PlannedTensor[] {
  return tensors.filter(({ offset, byteLength }) => offset + byteLength > begin);
}
