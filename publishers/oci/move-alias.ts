import { putManifest } from '../../remote/oci/manifests.ts';
import type { RegistryClient } from '../../remote/oci/registry-client.ts';
import { type AliasState, artefactNameOf, type MoveAlias } from '../publisher.ts';
import {
  type AliasRecord,
  aliasManifest,
  EMPTY_CONFIG,
  isSameState,
  stateOf,
} from './alias-record.ts';
import { bytesBlob, ensureBlob } from './file-blob.ts';
import { aliasMoved, conflict, notPublished } from './oci-errors.ts';
import { locationOf, readArtefact, readRecord, readTag } from './oci-repository.ts';
import { aliasTagOf, recordTagOf, tagOf } from './tags.ts';

interface AliasName {
  readonly alias: string;
  readonly part?: string | undefined;
}

export async function readAlias(
  client: RegistryClient,
  { alias, part }: AliasName,
  signal: AbortSignal,
): Promise<AliasState | undefined> {
  const tag = aliasTagOf(alias, part);
  const tagged = await readTag(client, tag, signal);
  if (tagged.kind !== 'artefact' || tagged.found.part !== part) return undefined;
  return stateOf(tagged.found.release, await readRecord(client, tag, signal));
}

/**
 * Writes the history first and moves the tag, which is what holds, in one request.
 *
 * The registry takes the last of two who write a tag: who moves an alias at the same moment as somebody
 * else may be told that it succeeded, although the other move is what remains.
 */
export async function moveAlias(
  client: RegistryClient,
  move: MoveAlias,
  signal: AbortSignal,
): Promise<void> {
  const { alias, part, to, from, history } = move;
  const tag = aliasTagOf(alias, part);
  const location = locationOf(client, tag);
  const id = { release: to, ...(part !== undefined && { part }) };
  const target = await readArtefact(client, id, signal);
  if (target.kind !== 'artefact' || target.found.isPruned) {
    const remedy = `Publish it there before ${alias} points at it.`;
    throw notPublished(locationOf(client, tagOf(artefactNameOf(id))), remedy);
  }
  await requireAliasOrNothing(client, move, signal);
  const now = await readAlias(client, move, signal);
  const next: AliasState = { release: to, history };
  if (!isSameState(now, from)) throw aliasMoved(location, now?.release);
  const record: AliasRecord = {
    ...{ alias, now: next },
    ...(part !== undefined && { part }),
    ...(from !== undefined && { before: { release: from.release, history: from.history } }),
  };
  await writeRecord(client, tag, record, signal);
  await putManifest(client, tag, target.stored.bytes, signal);
  const after = await readAlias(client, move, signal);
  if (after?.release !== to) throw aliasMoved(location, after?.release);
}

async function writeRecord(
  client: RegistryClient,
  tag: string,
  record: AliasRecord,
  signal: AbortSignal,
): Promise<void> {
  await ensureBlob(client, bytesBlob(EMPTY_CONFIG, 'the empty configuration'), signal);
  await putManifest(client, recordTagOf(tag), aliasManifest(record), signal);
}

/** Names of other things, of versions and of other aliases with the same tag are not taken over. */
async function requireAliasOrNothing(
  client: RegistryClient,
  { alias, part }: AliasName,
  signal: AbortSignal,
): Promise<void> {
  const tag = aliasTagOf(alias, part);
  const tagged = await readTag(client, tag, signal);
  if (tagged.kind === 'nothing') return;
  const location = locationOf(client, tag);
  if (tagged.kind === 'other') throw conflict(location, 'and is no alias');
  if (tag === tagOf(artefactNameOf(tagged.found))) throw conflict(location, 'as a version');
  const record = await readRecord(client, tag, signal);
  const isOther = record !== undefined && (record.alias !== alias || record.part !== part);
  if (isOther || tagged.found.part !== part) throw conflict(location, 'as another alias');
}
