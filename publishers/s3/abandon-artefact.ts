import { WeldlineError } from '../../engine/errors.ts';
import { type AbandonOptions, type ArtefactId, artefactNameOf } from '../publisher.ts';
import { keyOfClaim, refuseClaimed } from './claim.ts';
import { findArtefact, keyOfFile, locationOf } from './find-artefact.ts';
import { abortUpload, findUploads } from './multipart.ts';
import { notesPrefix } from './recorded-digests.ts';
import type { S3Objects } from './s3-objects.ts';

/**
 * Drops what a publication that nobody goes on with has sent: uploads that cost money and are seen by
 * nobody, files of a version that does not exist, notes.
 * @returns what was removed; nothing where the id is published, or being published from another plan
 */
export async function abandonArtefact(
  objects: S3Objects,
  id: ArtefactId,
  { planDigest, keepsFiles }: Omit<AbandonOptions, 'signal'>,
): Promise<readonly string[]> {
  const name = artefactNameOf(id);
  const location = locationOf(objects, name);
  if (!(await isAbandoned(objects, name, planDigest))) return [];
  const removed: string[] = [];
  const folder = keyOfFile(objects, name, '');
  const { connection, signal } = objects;
  for (const upload of await findUploads(connection, folder, signal)) {
    await abortUpload(connection, upload, signal);
    removed.push(`${objects.uri(upload.key)}: an unfinished upload`);
  }
  if (keepsFiles) {
    await objects.remove([keyOfClaim(objects, name)]);
    return removed;
  }
  const files = await objects.below(folder);
  const notes = await objects.below(notesPrefix(objects, name));
  // Somebody may have published it while this was looked up.
  if (!(await isAbandoned(objects, name, planDigest))) return removed;
  await objects.remove([...files.keys(), ...notes.keys()]);
  if (files.size > 0)
    removed.push(`${location}: ${files.size} file(s) of an unfinished publication`);
  return removed;
}

async function isAbandoned(
  objects: S3Objects,
  artefact: string,
  planDigest: string,
): Promise<boolean> {
  if ((await findArtefact(objects, artefact)) !== undefined) return false;
  const location = locationOf(objects, artefact);
  try {
    await refuseClaimed(objects, artefact, { planDigest, location });
    return true;
  } catch (error) {
    if (error instanceof WeldlineError && error.code === 'publish.conflict') return false;
    throw error;
  }
}
