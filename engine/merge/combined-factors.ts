import { mkdir, open, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { temporaryBeside } from '../durable-files.ts';
import { COMBINED_INPUT, combinedShard } from './combined-shard.ts';
import type { CombinedMessage, CombiningTask, FactorWorkerData } from './factor-worker.ts';
import { createControl } from './merge-control.ts';
import { runThreads, threadUrl } from './run-threads.ts';
import { type MergeShardOptions, reportProgress } from './shard-options.ts';

/**
 * Combines the factors of all tensors of a shard that need it, before its windows are made: each
 * tensor once and several at a time, into a file that lasts as long as `merge`. They are the same
 * whatever attempt, thread or machine works them out.
 *
 * @param begin bytes of the shard that are there already
 * @param merge gets the shard with plain deltas in place of combined ones
 * @throws WeldlineError `merge.non-finite`, `disk.*`; the signal's reason if it is aborted
 */
export async function withCombinedFactors<Result>(
  options: MergeShardOptions,
  begin: number,
  merge: (options: MergeShardOptions) => Promise<Result>,
): Promise<Result> {
  const { shard, directory, roots } = options;
  if (!shard.tensors.some(({ combined }) => combined !== undefined)) return merge(options);
  // A name of its own: another attempt may be reading its file.
  const path = temporaryBeside(join(directory.journals, `${shard.file}.factors`));
  const ready = combinedShard(shard, basename(path));
  const tasks = shard.tensors.flatMap((tensor, index): CombiningTask[] => {
    const [delta] = ready.tensors[index]?.deltas ?? [];
    const isLeft = tensor.offset + tensor.byteLength > begin;
    return tensor.combined && delta && isLeft ? [{ tensor, offset: delta.a.offset }] : [];
  });
  try {
    await mkdir(dirname(path), { recursive: true });
    await (await open(path, 'wx')).close();
    await combineAll(options, tasks, path, begin);
    const combined = { [COMBINED_INPUT]: dirname(path) };
    return await merge({ ...options, shard: ready, roots: { ...roots, ...combined } });
  } finally {
    await rm(path, { force: true });
  }
}

async function combineAll(
  options: MergeShardOptions,
  tasks: readonly CombiningTask[],
  path: string,
  begin: number,
): Promise<void> {
  const { roots, resources, signal } = options;
  const data: FactorWorkerData = { tasks, roots, path, control: createControl() };
  const count = Math.min(resources.factorThreads, tasks.length);
  const onMessage = ({ tensor }: CombinedMessage): void => reportProgress(options, begin, tensor);
  await runThreads({ url: threadUrl('factor-worker'), data, count, onMessage, signal });
}
