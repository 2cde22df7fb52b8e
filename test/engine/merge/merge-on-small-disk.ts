/**
 * Merges onto a file system of 64 MiB that fills up on the way, in a mount namespace of its own:
 * run under `unshare`, so that nothing is left mounted. Prints what happened as JSON.
 *
 *     unshare --mount node merge-on-small-disk.ts BASE ADAPTER MOUNT_POINT
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeldlineError } from '../../../engine/errors.ts';
import {
  type MergeDirectoriesOptions,
  mergeDirectories,
  planDirectories,
} from '../../doubles/merge-directories.ts';

const MIB = 1024 * 1024;

export interface SmallDiskReport {
  /** A disk that is too small from the start. */
  readonly refused: string;
  /** Free space that another program takes meanwhile. */
  readonly interrupted: string;
  readonly leftBehind: readonly string[];
  readonly finishedFiles: readonly string[];
  /** SHA-256 of the shards after space was freed and the merge resumed. */
  readonly digests: Readonly<Record<string, string>>;
  /** Bytes that the resumed run found done when it began. */
  readonly bytesResumed: number;
}

async function run(base: string, adapter: string, disk: string): Promise<SmallDiskReport> {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', disk]);
  const plan = await planDirectories({ base, adapter });
  const output = join(disk, 'output');
  const filler = join(disk, 'filler');
  const last = plan.shards.at(-1)?.file ?? '';
  const merge = (onProgress?: MergeDirectoriesOptions['onProgress']) =>
    mergeDirectories({
      base,
      adapter,
      output,
      plan,
      threads: 2,
      ...(onProgress && { onProgress }),
    });
  const failure = async (promise: Promise<unknown>): Promise<string> => {
    const error = await promise.then(
      () => 'nothing failed',
      (reason: unknown) => reason,
    );
    return error instanceof WeldlineError ? `${error.code}: ${error.message}` : String(error);
  };

  writeFileSync(filler, new Uint8Array(40 * MIB));
  const refused = await failure(merge());
  rmSync(filler);

  const interrupted = await failure(
    merge(({ shard }) => {
      if (shard === last && !existsSync(filler)) fill(filler);
    }),
  );
  const leftBehind = readdirSync(disk).sort();
  const finishedFiles = readdirSync(disk, { recursive: true })
    .map(String)
    .filter((path) => path.endsWith('weldline.json'));
  rmSync(filler);

  let bytesResumed = -1;
  await merge(({ bytesDone }) => {
    if (bytesResumed < 0) bytesResumed = bytesDone;
  });
  const digests: Record<string, string> = {};
  for (const name of readdirSync(output).filter((each) => each.endsWith('.safetensors'))) {
    digests[name] = createHash('sha256')
      .update(readFileSync(join(output, name)))
      .digest('hex');
  }
  return { refused, interrupted, leftBehind, finishedFiles, digests, bytesResumed };
}

/** Takes what is free, save the last MiB. */
function fill(path: string): void {
  const piece = new Uint8Array(MIB);
  writeFileSync(path, '');
  try {
    for (;;) writeFileSync(path, piece, { flag: 'a' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
}

const [base, adapter, disk] = process.argv.slice(2);
if (base === undefined || adapter === undefined || disk === undefined) {
  throw new Error('usage: merge-on-small-disk.ts BASE ADAPTER MOUNT_POINT');
}
process.stdout.write(JSON.stringify(await run(base, adapter, disk)));
