import { WeldlineError } from '../../engine/errors.ts';
import { connectS3 } from '../../remote/s3-connection.ts';
import {
  type ArtefactId,
  artefactNameOf,
  type Patience,
  type Publisher,
  RELEASE_FILE,
} from '../publisher.ts';
import { isPrunable, PRUNED_FILE, RELEASE_RECORD_BYTES_MAX } from '../release-record.ts';
import { abandonArtefact } from './abandon-artefact.ts';
import { findArtefact, keyOfFile, listArtefacts, locationOf } from './find-artefact.ts';
import { openMultipart, partBytesFor } from './multipart.ts';
import { conflict, publishArtefact, removeNotes } from './publish-artefact.ts';
import { notesPrefix } from './recorded-digests.ts';
import { listAliases, moveAlias, readAlias, refuseAliased } from './s3-aliases.ts';
import { S3Objects } from './s3-objects.ts';

export interface S3Target {
  readonly bucket: string;
  /** Of all keys, without a slash at its end. */
  readonly prefix?: string | undefined;
  readonly region?: string | undefined;
  readonly endpoint?: string | undefined;
}

export interface S3PublisherOptions {
  readonly patience: Patience;
  /** Bytes of a part of a file of some size; tests have smaller ones. */
  readonly partBytesFor?: (size: number) => number;
}

/** What all keys of a target begin with. */
export function rootOf({ prefix }: S3Target): string {
  return prefix === undefined ? '' : `${prefix}/`;
}

/**
 * Publishes into a bucket: `<prefix>/<artefact>/<path>`, `release.json` last. Beside the artefacts lie
 * `<prefix>/aliases/`, and, as long as something is not published yet, `<prefix>/.weldline/` with
 * claims and digests.
 */
export async function createS3Publisher(
  target: S3Target,
  options: S3PublisherOptions,
): Promise<Publisher> {
  const { bucket, region, endpoint } = target;
  const { patience, partBytesFor: partBytes = partBytesFor } = options;
  const connection = await connectS3({ bucket, region, endpoint, patience, side: 'publish' });
  const open = (signal: AbortSignal) => new S3Objects(connection, rootOf(target), signal);
  const find: Publisher['find'] = async (id, signal) => {
    const found = await findArtefact(open(signal), artefactNameOf(id));
    if (found === undefined || found === 'foreign') return undefined;
    return found.release === id.release && found.part === id.part ? found : undefined;
  };
  return {
    kind: 's3',
    name: `s3://${bucket}/${rootOf(target)}`.replace(/\/$/, ''),
    holds: 'files',
    accepts: () => true,
    find,
    check: (id, planDigest, signal) => check(open(signal), id, planDigest),
    publish: (artefact, { signal, onProgress, publishedAt }) =>
      publishArtefact({
        ...{ objects: open(signal), artefact, partBytesFor: partBytes, onProgress, publishedAt },
      }),
    list: (signal) => listArtefacts(open(signal)),
    withdraw: (id, signal) => withdraw(open(signal), id),
    abandon: (id, { signal, ...what }) => abandonArtefact(open(signal), id, what),
    prune: (id, { signal, isDryRun }) => prune(open(signal), id, isDryRun),
    readAlias: async (alias, part, signal) => (await readAlias(open(signal), alias, part))?.state,
    listAliases: (signal) => listAliases(open(signal)),
    async moveAlias(move, signal) {
      const { to: release, part } = move;
      const id = part === undefined ? { release } : { release, part };
      const found = await find(id, signal);
      if (found === undefined || found.isPruned) throw notFound(open(signal), id);
      await moveAlias(open(signal), move);
    },
  };
}

async function check(
  objects: S3Objects,
  id: ArtefactId,
  planDigest: string | undefined,
): Promise<void> {
  const name = artefactNameOf(id);
  const found = await findArtefact(objects, name);
  const isOther = found !== 'foreign' && found?.planDigest !== planDigest;
  if (found === 'foreign' || (found !== undefined && planDigest !== undefined && isOther)) {
    throw conflict(locationOf(objects, name), found === 'foreign');
  }
  // An upload that is begun and dropped shows nothing, and needs the right to write.
  const { connection, signal } = objects;
  const key = `${notesPrefix(objects, name)}check`;
  await (await openMultipart(connection, { key, signal })).abort();
}

async function withdraw(objects: S3Objects, id: ArtefactId): Promise<void> {
  const name = artefactNameOf(id);
  const location = locationOf(objects, name);
  if ((await findArtefact(objects, name)) === 'foreign') throw conflict(location, true);
  await refuseAliased(objects, id, location);
  const key = keyOfFile(objects, name, RELEASE_FILE);
  const release = await objects.readText(key, RELEASE_RECORD_BYTES_MAX);
  await objects.remove([key]);
  // Pointed at in this moment, it comes back.
  await refuseAliased(objects, id, location).catch(async (error: unknown) => {
    if (release !== undefined)
      await objects.put(key, Buffer.from(release.text), { ifAbsent: true });
    throw error;
  });
  const files = await objects.below(keyOfFile(objects, name, ''));
  await objects.remove(files.keys());
  await removeNotes(objects, name, []);
  await objects.remove((await objects.below(notesPrefix(objects, name))).keys());
}

async function prune(objects: S3Objects, id: ArtefactId, isDryRun: boolean): Promise<number> {
  const name = artefactNameOf(id);
  const found = await findArtefact(objects, name);
  if (found === undefined || found === 'foreign') throw notFound(objects, id);
  const location = locationOf(objects, name);
  await refuseAliased(objects, id, location);
  const folder = keyOfFile(objects, name, '');
  const pruned = [...(await objects.below(folder))].filter(([key]) =>
    isPrunable(key.slice(folder.length), found.kind),
  );
  const bytes = pruned.reduce((sum, [, { size }]) => sum + size, 0);
  if (isDryRun || pruned.length === 0) return bytes;
  const files = pruned.map(([key]) => key.slice(folder.length));
  // First, so that what is half removed is known to be.
  const mark = JSON.stringify({ prunedAt: new Date().toISOString(), files });
  await objects.put(`${folder}${PRUNED_FILE}`, Buffer.from(`${mark}\n`));
  // The mark keeps aliases away; one that came before it keeps the weights.
  await refuseAliased(objects, id, location).catch(async (error: unknown) => {
    await objects.remove([`${folder}${PRUNED_FILE}`]);
    throw error;
  });
  await objects.remove(pruned.map(([key]) => key));
  return bytes;
}

function notFound(objects: S3Objects, id: ArtefactId): WeldlineError {
  return new WeldlineError(
    'publish.not-found',
    `${locationOf(objects, artefactNameOf(id))} is not published, or was pruned. \`weldline release\` ` +
      'publishes it.',
  );
}
