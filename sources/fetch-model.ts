import { mkdir, realpath } from 'node:fs/promises';
import path from 'node:path';
import { writing } from './disk-failure.ts';
import { type Blob, type FetchedBytes, type FetchOptions, fetchBlobs } from './fetch-blobs.ts';
import { blobPaths, linkSnapshotFile, snapshotDirectory, writeRef } from './hub-cache.ts';
import type { HubConnection } from './hub-connection.ts';
import { hubFileReader } from './hub-file-reader.ts';
import { blobName, type HubFile, type HubModel } from './hub-model.ts';

export interface FetchModelOptions extends FetchOptions {
  readonly model: HubModel;
  /** The files to fetch, of `model.files`. */
  readonly files: readonly HubFile[];
  /** The hub cache: see `Environment.hub` in config/environment.ts. */
  readonly cacheDirectory: string;
}

export interface FetchedModel extends FetchedBytes {
  /** The snapshot directory: the files under their names, as links. */
  readonly directory: string;
}

/**
 * Brings files of one commit into the standard hub cache, as `fetchBlobs` does it; what the official
 * client left there counts too.
 *
 * Returns when every file is in place and `refs/<revision>` names the commit. Safe to repeat and to
 * run twice at once.
 * @throws WeldlineError `hub.*`, `disk.full`, `disk.write-failed`, or the abort reason of `signal`
 */
export async function fetchModel(
  connection: HubConnection,
  options: FetchModelOptions,
): Promise<FetchedModel> {
  const { model, files } = options;
  const cacheDirectory = path.resolve(options.cacheDirectory);
  const fetched = await fetchBlobs(
    {
      name: model.repo,
      place: { directory: cacheDirectory, variable: 'HF_HUB_CACHE' },
      blobs: distinctBlobs(connection, cacheDirectory, model, files),
    },
    options,
  );
  // Not before: readers take a snapshot that exists for a complete one.
  const snapshot = snapshotDirectory(cacheDirectory, model.repo, model.commit);
  await writing(snapshot, () => mkdir(snapshot, { recursive: true }));
  for (const file of files) {
    const { blob } = blobPaths(cacheDirectory, model.repo, blobName(file));
    await linkIfNeeded(snapshot, file, blob);
  }
  if (model.revision !== model.commit) {
    await writeRef(cacheDirectory, model.repo, model.revision, model.commit);
  }
  return { directory: snapshot, ...fetched };
}

/** Files with the same content are one blob. */
function distinctBlobs(
  connection: HubConnection,
  cacheDirectory: string,
  model: HubModel,
  files: readonly HubFile[],
): Blob[] {
  const byName = new Map(files.map((file) => [blobName(file), file]));
  return [...byName].map(([name, file]) => ({
    file,
    paths: blobPaths(cacheDirectory, model.repo, name),
    reader: hubFileReader(connection, model, file),
  }));
}

async function linkIfNeeded(snapshot: string, file: HubFile, blob: string): Promise<void> {
  const link = path.join(snapshot, ...file.path.split('/'));
  const target = await realpath(link).catch(() => undefined);
  if (target !== undefined && target === (await realpath(blob))) return;
  await linkSnapshotFile(snapshot, file.path, blob);
}
