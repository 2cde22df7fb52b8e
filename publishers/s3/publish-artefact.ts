import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { toReadError } from '../../engine/disk-errors.ts';
import { assert, WeldlineError } from '../../engine/errors.ts';
import { isAnswer } from '../../remote/s3-failure.ts';
import {
  type Artefact,
  type ArtefactFile,
  artefactNameOf,
  type FoundArtefact,
  type Published,
  type PublishOptions,
  RELEASE_FILE,
} from '../publisher.ts';
import { isPrunable, PRUNED_FILE } from '../release-record.ts';
import { type Claim, claimArtefact, keyOfClaim } from './claim.ts';
import { findArtefact, keyOfFile, locationOf } from './find-artefact.ts';
import { abortUpload, findUploads } from './multipart.ts';
import { keyOfRecord } from './recorded-digests.ts';
import { S3Objects } from './s3-objects.ts';
import { changedFile, uploadFile } from './upload-file.ts';

export interface PublishArtefact extends Omit<PublishOptions, 'signal'> {
  readonly objects: S3Objects;
  readonly artefact: Artefact;
  /** Bytes of a part of a file of some size. */
  readonly partBytesFor: (size: number) => number;
}

/** What is left of a publication that failed is worth no longer wait. */
const CLEAN_UP_TIMEOUT_MS = 10_000;

/** Sends what lacks, and writes `release.json` when all of it is there. */
export async function publishArtefact(options: PublishArtefact): Promise<Published> {
  const { objects, artefact } = options;
  const there = await findSame(options);
  const name = artefactNameOf(artefact);
  if (there?.isPruned === false) {
    await atLeisure(objects, (own) => removeLeftNotes(own, name, artefact.files));
    return toPublished(options, 0, true);
  }
  const { manifestDigest, planDigest } = artefact;
  const location = locationOf(objects, name);
  const of = { artefact: name, manifestDigest, planDigest, location };
  const claim = await claimArtefact({ objects, ...of });
  try {
    const published = await publishClaimed(options, claim);
    await atLeisure(objects, (own) => removeNotes(own, name, artefact.files));
    return published;
  } catch (error) {
    await atLeisure(objects, (own) => claim.release(own));
    throw error;
  }
}

/** Whoever published it may have been killed before its notes were removed. */
async function removeLeftNotes(
  objects: S3Objects,
  name: string,
  files: Artefact['files'],
): Promise<void> {
  if ((await objects.head(keyOfClaim(objects, name))) !== undefined) {
    await removeNotes(objects, name, files);
  }
}

/** Removes what only an unfinished publication of some files needs: claim, digests, parts. */
export async function removeNotes(
  objects: S3Objects,
  artefact: string,
  files: readonly { readonly path: string }[],
): Promise<void> {
  const { connection, signal } = objects;
  const uploads = await findUploads(connection, keyOfFile(objects, artefact, ''), signal);
  for (const upload of uploads) await abortUpload(connection, upload, signal);
  const records = files.map(({ path }) => keyOfRecord(objects, artefact, path));
  await objects.remove([keyOfClaim(objects, artefact), ...records]);
}

async function publishClaimed(options: PublishArtefact, claim: Claim): Promise<Published> {
  const { objects, artefact, partBytesFor, onProgress } = options;
  // Somebody may have been faster before there was a claim.
  const there = await findSame(options);
  if (there?.isPruned === false) return toPublished(options, 0, true);
  const files = there === undefined ? artefact.files : prunableOf(artefact);
  const bytesTotal = files.reduce((sum, { size }) => sum + size, 0);
  const name = artefactNameOf(artefact);
  const folder = keyOfFile(objects, name, '');
  const before = await objects.below(folder);
  const etags = new Map<string, string>();
  let [bytesDone, bytesSent] = [0, 0];
  for (const file of files) {
    const report = (bytes: number): void =>
      onProgress({ item: file.path, bytesDone: bytesDone + bytes, bytesTotal });
    report(0);
    objects.signal.throwIfAborted();
    if (file.path === RELEASE_FILE) break;
    const partBytes = partBytesFor(file.size);
    const key = `${folder}${file.path}`;
    const sizeThere = before.get(key)?.size;
    const upload = { objects, artefact: name, file, sizeThere, partBytes, claim, onBytes: report };
    const uploaded = await uploadFile(upload);
    etags.set(key, uploaded.etag);
    bytesSent += uploaded.bytesSent;
    bytesDone += file.size;
  }
  await claim.renew();
  await requireUnchanged(objects, folder, etags);
  if (there !== undefined) {
    await objects.remove([`${folder}${PRUNED_FILE}`]);
    return toPublished(options, bytesSent, true);
  }
  // What an earlier publication left that was of something else, and was never finished.
  const own = new Set(artefact.files.map(({ path }) => `${folder}${path}`));
  await objects.remove([...before.keys()].filter((key) => !own.has(key)));
  const release = artefact.files.at(-1);
  assert(release?.path === RELEASE_FILE, `${name} does not end with ${RELEASE_FILE}`);
  const isOurs = await commit(options, release);
  onProgress({ item: RELEASE_FILE, bytesDone: bytesTotal, bytesTotal });
  return toPublished(options, isOurs ? bytesSent + release.size : bytesSent, !isOurs);
}

/**
 * What was compared with its digest an hour ago must still be what is there now: a publication that
 * lost its claim may have gone on for a while, and a pruning may have been at work.
 * @param etags by key
 */
async function requireUnchanged(
  objects: S3Objects,
  folder: string,
  etags: ReadonlyMap<string, string>,
): Promise<void> {
  const there = await objects.below(folder);
  for (const [key, etag] of etags) {
    // Asked again, as listings of some servers write it otherwise.
    if (there.get(key)?.etag === etag || (await objects.head(key))?.etag === etag) continue;
    throw replacedMeanwhile(objects.uri(key));
  }
}

function replacedMeanwhile(location: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${location} was replaced or removed while the artefact was published, which is not made visible. ` +
      'Publish again, and look for whatever else writes there.',
  );
}

/** @returns false if somebody else has published the same meanwhile */
async function commit(options: PublishArtefact, release: ArtefactFile): Promise<boolean> {
  const { objects, artefact } = options;
  const bytes = await readFile(release.source).catch((error: unknown) => {
    throw toReadError(error, release.source);
  });
  if (createHash('sha256').update(bytes).digest('hex') !== release.sha256) {
    throw changedFile(release);
  }
  const key = keyOfFile(objects, artefactNameOf(artefact), RELEASE_FILE);
  try {
    await objects.put(key, bytes, { ifAbsent: true });
    return true;
  } catch (error) {
    if (!isAnswer(error, 412)) throw error;
    // Another's, or this very one, of which the first answer was lost.
    if ((await findSame(options)) === undefined) throw error;
    return false;
  }
}

/**
 * The artefact, where it is published already.
 * @throws WeldlineError `publish.conflict` if something else is there
 */
async function findSame({
  objects,
  artefact,
}: PublishArtefact): Promise<FoundArtefact | undefined> {
  const name = artefactNameOf(artefact);
  const found = await findArtefact(objects, name);
  if (found === undefined) return undefined;
  if (found !== 'foreign' && found.manifestDigest === artefact.manifestDigest) return found;
  throw conflict(locationOf(objects, name), found === 'foreign');
}

export function conflict(location: string, isForeign: boolean): WeldlineError {
  const what = isForeign ? 'which is not that release' : 'made from other inputs';
  return new WeldlineError(
    'publish.conflict',
    `${location} exists already, ${what}. A version is published once: raise "version" in the ` +
      'recipe, or remove what is there.',
  );
}

function prunableOf({ files, description }: Artefact): readonly ArtefactFile[] {
  return files.filter(({ path }) => isPrunable(path, description.kind));
}

function toPublished(
  { objects, artefact }: PublishArtefact,
  bytesSent: number,
  existed: boolean,
): Published {
  const location = locationOf(objects, artefactNameOf(artefact));
  return { target: 's3', location, pinned: location, existed, bytesSent };
}

/** Whatever becomes of it, the publication has succeeded or failed before. */
async function atLeisure(
  { connection, root }: S3Objects,
  work: (objects: S3Objects) => Promise<void>,
): Promise<void> {
  const signal = AbortSignal.timeout(CLEAN_UP_TIMEOUT_MS);
  await work(new S3Objects(connection, root, signal)).catch(() => undefined);
}
