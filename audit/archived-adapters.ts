import { randomUUID } from 'node:crypto';
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { WeldlineError } from '../engine/errors.ts';
import type { Manifest } from '../engine/manifest.ts';
import type { ModelAccess } from '../sources/model-input.ts';
import { archivedPath } from './check-adapters.ts';
import type { OpenedArtefact } from './open-artefact.ts';

/** Copied in pieces. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** As recipes have them: they become names of directories. */
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/**
 * Gives the directories of the adapters that an artefact carries, by their ids. Of one that is
 * elsewhere they are brought here for as long as `work` takes.
 * @throws WeldlineError `manifest.invalid`; what reading and `work` throw
 */
export async function withArchive<T>(
  { files, directory }: OpenedArtefact,
  { inputs }: Pick<Manifest, 'inputs'>,
  { access, signal }: { readonly access: ModelAccess; readonly signal: AbortSignal },
  work: (roots: Readonly<Record<string, string>>) => Promise<T>,
): Promise<T> {
  const place = directory ?? join(access.modelsDirectory, 'archives', randomUUID());
  const roots: Record<string, string> = {};
  try {
    for (const { id, files: wanted } of inputs) {
      if (!ID.test(id)) throw notAnId(id);
      const paths = wanted.map(({ path }) => archivedPath(id, path));
      // One that is there in part is damaged, which its digests will tell.
      const there = paths.filter((path) => files.sizes.has(path));
      if (there.length === 0) continue;
      roots[id] = join(place, archivedPath(id, ''));
      if (directory !== undefined) continue;
      for (const path of there) await copyHere(files, path, join(place, path), signal);
    }
    return await work(roots);
  } finally {
    if (directory === undefined) await rm(place, { recursive: true, force: true });
  }
}

async function copyHere(
  files: OpenedArtefact['files'],
  path: string,
  target: string,
  signal: AbortSignal,
): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  const source = await files.open(path);
  const handle = await open(target, 'w');
  try {
    for (let offset = 0; offset < source.size; offset += PIECE_BYTES) {
      signal.throwIfAborted();
      const length = Math.min(PIECE_BYTES, source.size - offset);
      await handle.writeFile(await source.read(offset, length));
    }
  } finally {
    await handle.close();
    await source.close();
  }
}

function notAnId(id: string): WeldlineError {
  return new WeldlineError(
    'manifest.invalid',
    `The manifest has an input called ${JSON.stringify(id.slice(0, 100))}, which is no id of an ` +
      'adapter: it was changed.',
  );
}
