/**
 * Models that are neither directories nor on a hub, on this machine:
 *
 *   models/<kind>/<pin>/files/<path>    their files, each whole
 *   models/<kind>/<pin>/state/<path>.*  what is being fetched: partial, journal, lock, and the note
 *                                       that a file was checked
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { assert } from '../engine/errors.ts';
import { type FetchedBytes, type FetchOptions, fetchBlobs } from './fetch-blobs.ts';
import type { BlobPaths } from './hub-cache.ts';
import { isPlainPath } from './hub-path.ts';
import { rangeReaderOf } from './range-reader.ts';
import type { RemoteModel, RemoteSource } from './remote-source.ts';

export interface FetchedRemote extends FetchedBytes {
  /** The directory that holds its files. */
  readonly directory: string;
}

/**
 * Brings the files of a pinned model into the cache, as `fetchBlobs` does it. Reads of a place that
 * knows no digests are tied to the versions that were pinned.
 * @param modelsDirectory where such models are kept
 * @throws WeldlineError `source.*`, `disk.full`, `disk.write-failed`, or the abort reason
 */
export async function fetchRemote(
  source: RemoteSource,
  model: RemoteModel,
  modelsDirectory: string,
  options: FetchOptions = {},
): Promise<FetchedRemote> {
  const blobs = model.files.map((file) => ({
    file,
    paths: remotePaths(modelsDirectory, model, file.path),
    reader: rangeReaderOf(`${model.uri}/${file.path}`, () => source.open(model, file)),
  }));
  const place = { directory: modelsDirectory, variable: 'WELDLINE_HOME' };
  const fetched = await fetchBlobs({ name: model.uri, place, blobs }, options);
  return { directory: path.join(placeOf(modelsDirectory, model), 'files'), ...fetched };
}

/** Bytes of its files that are not in the cache. */
export async function remoteBytesAbsent(
  model: RemoteModel,
  modelsDirectory: string,
): Promise<number> {
  let bytes = 0;
  for (const file of model.files) {
    const { blob } = remotePaths(modelsDirectory, model, file.path);
    const cached = await stat(blob).catch(() => undefined);
    if (cached?.size !== file.size) bytes += file.size;
  }
  return bytes;
}

function placeOf(modelsDirectory: string, { kind, pin }: RemoteModel): string {
  // It becomes a directory of this disk.
  assert(/^[0-9a-f]{40,128}$/.test(pin), `the pin ${pin.slice(0, 80)} is not hexadecimal`);
  return path.join(modelsDirectory, kind, pin);
}

function remotePaths(modelsDirectory: string, model: RemoteModel, filePath: string): BlobPaths {
  assert(isPlainPath(filePath), `a source lists the path ${filePath.slice(0, 120)}`);
  const steps = filePath.split('/');
  const place = placeOf(modelsDirectory, model);
  const state = path.join(place, 'state', ...steps);
  return {
    blob: path.join(place, 'files', ...steps),
    partial: `${state}.incomplete`,
    journal: `${state}.journal`,
    lock: `${state}.lock`,
    verified: `${state}.verified`,
  };
}
