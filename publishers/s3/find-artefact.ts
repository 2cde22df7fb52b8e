import { artefactNameOf, type FoundArtefact, RELEASE_FILE } from '../publisher.ts';
import {
  PRUNED_FILE,
  parseReleaseRecord,
  RELEASE_RECORD_BYTES_MAX,
  type ReleaseRecord,
} from '../release-record.ts';
import { ALIASES_FOLDER } from './s3-aliases.ts';
import type { S3Objects } from './s3-objects.ts';

/** With what it is, where its release says so. */
export type FoundRelease = FoundArtefact & Pick<ReleaseRecord, 'kind'>;

/** Artefacts that are looked at side by side. */
const LOOKED_AT_ONCE = 8;

export function keyOfFile({ root }: S3Objects, artefact: string, path: string): string {
  return `${root}${artefact}/${path}`;
}

export function locationOf(objects: S3Objects, artefact: string): string {
  return objects.uri(`${objects.root}${artefact}`);
}

/**
 * What is published under a name: undefined where nothing is, `foreign` where something is that is no
 * release of that name.
 */
export async function findArtefact(
  objects: S3Objects,
  artefact: string,
): Promise<FoundRelease | 'foreign' | undefined> {
  const key = keyOfFile(objects, artefact, RELEASE_FILE);
  const found = await objects.readText(key, RELEASE_RECORD_BYTES_MAX);
  if (found === undefined) return undefined;
  const record = parseReleaseRecord(found.text);
  // Copied to another name, it is no version of that.
  if (record === undefined || artefactNameOf(record) !== artefact) return 'foreign';
  const pruned = await objects.head(keyOfFile(objects, artefact, PRUNED_FILE));
  const location = locationOf(objects, artefact);
  return { ...record, location, pinned: location, isPruned: pruned !== undefined };
}

/** All artefacts of a target. */
export async function listArtefacts(objects: S3Objects): Promise<readonly FoundArtefact[]> {
  const folders = await objects.folders(objects.root);
  const names = folders.filter((name) => name !== ALIASES_FOLDER && !name.startsWith('.'));
  const found: FoundArtefact[] = [];
  for (let at = 0; at < names.length; at += LOOKED_AT_ONCE) {
    const some = names.slice(at, at + LOOKED_AT_ONCE);
    const looked = await Promise.all(some.map((name) => findArtefact(objects, name)));
    for (const each of looked) if (each !== undefined && each !== 'foreign') found.push(each);
  }
  return found;
}
