import { join } from 'node:path';
import { toWriteError } from '../disk-errors.ts';
import { digestFile } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import { withCombinedFactors } from './combined-factors.ts';
import { readInputState } from './input-state.ts';
import type { CompletedShard } from './journal.ts';
import { sendShard } from './send-shard.ts';
import { readCompletion, ShardFile } from './shard-file.ts';
import { type MergeShardOptions, reportProgress } from './shard-options.ts';
import { copyOriginal, findOriginal } from './untouched-shard.ts';
import { writeWindows } from './write-windows.ts';

/**
 * Merges one output shard: goes on where an earlier attempt stopped, after verifying what it left,
 * and gives the file its final name only when it is whole and synced. Idempotent.
 *
 * @returns size and SHA-256 of the shard
 * @throws WeldlineError `merge.*`, `disk.*`; the signal's reason if it is aborted
 */
export async function mergeShard(options: MergeShardOptions): Promise<CompletedShard> {
  const { shard, directory, sink, signal } = options;
  if (sink !== undefined) {
    return sendShard({ ...options, sink, signal: signal ?? new AbortController().signal });
  }
  try {
    const finished = await findFinished(options);
    if (finished !== undefined) {
      reportProgress(options, shard.size);
      return finished;
    }
    const inputs = await readInputState(options.plan, shard, options.roots, options.streamed);
    const original = await findOriginal(options);
    if (original !== undefined) reportProgress(options, 0);
    const result =
      original === undefined
        ? await writeShard(options, inputs)
        : await copyOriginal(options, original);
    reportProgress(options, shard.size);
    return result;
  } catch (error) {
    if (signal?.aborted === true) throw error;
    // An attempt that was thought dead may have finished and renamed the shard meanwhile.
    const finished = await findFinished(options).catch(() => undefined);
    if (finished !== undefined) return finished;
    throw toWriteError(error, join(directory.files, shard.file));
  }
}

/** A shard that an earlier attempt finished, if its bytes are still those it recorded. */
async function findFinished(options: MergeShardOptions): Promise<CompletedShard | undefined> {
  const { shard, directory, planDigest, signal } = options;
  const recorded = await readCompletion(shard, directory, planDigest);
  if (recorded === undefined) return undefined;
  try {
    const found = await digestFile(join(directory.files, shard.file), { signal });
    return found.sha256 === recorded.sha256 ? found : undefined;
  } catch (error) {
    if (signal?.aborted === true) throw error;
    return undefined;
  }
}

async function checkUnchanged(options: MergeShardOptions, inputs: string): Promise<void> {
  const { plan, shard, roots, streamed } = options;
  if ((await readInputState(plan, shard, roots, streamed)) === inputs) return;
  throw new WeldlineError(
    'merge.input-changed',
    `An input of ${shard.file} was written to or replaced while it was merged. Leave the inputs ` +
      'alone and run again; what was made of the changed file is not used.',
  );
}

async function writeShard(options: MergeShardOptions, inputs: string): Promise<CompletedShard> {
  const { shard, directory, planDigest, signal } = options;
  const file = await ShardFile.open({ shard, directory, planDigest, inputs, signal });
  try {
    const result = await withCombinedFactors(options, file.resumed.begin, (ready) =>
      writeWindows(ready, file),
    );
    await checkUnchanged(options, inputs);
    await file.complete(result);
    return result;
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}
