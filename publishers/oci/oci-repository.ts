import type { StoredManifest } from '../../remote/oci/manifest.ts';
import { getManifest, listTags } from '../../remote/oci/manifests.ts';
import { nameOfPlace } from '../../remote/oci/oci-place.ts';
import type { RegistryClient } from '../../remote/oci/registry-client.ts';
import {
  type AliasState,
  type ArtefactId,
  artefactNameOf,
  type FoundArtefact,
} from '../publisher.ts';
import { type AliasRecord, aliasRecordOf, stateOf } from './alias-record.ts';
import { recordOf } from './model-manifest.ts';
import { aliasTagOf, isRecordTag, recordTagOf, tagOf } from './tags.ts';

/** Enough to hide round trips; registries count requests. */
const REQUESTS_AT_ONCE = 6;

export type Alias = AliasState & { readonly alias: string; readonly part?: string };

/** What is under a tag. */
export type Tagged =
  | { readonly kind: 'nothing' }
  | {
      readonly kind: 'artefact';
      readonly found: FoundArtefact;
      readonly stored: StoredManifest;
    }
  /** Something that weldline did not put there. */
  | { readonly kind: 'other'; readonly stored?: StoredManifest };

/** Everything in a repository that has a tag. */
export interface RepositoryContent {
  readonly artefacts: readonly (Tagged & { kind: 'artefact' })[];
  readonly aliases: readonly Alias[];
  /** By tag. */
  readonly all: ReadonlyMap<string, Tagged>;
}

export function locationOf(client: RegistryClient, tag: string): string {
  return `${nameOfPlace(client.place)}:${tag}`;
}

export async function readTag(
  client: RegistryClient,
  tag: string,
  signal: AbortSignal,
): Promise<Tagged> {
  const stored = await getManifest(client, tag, signal);
  if (stored === undefined) return { kind: 'nothing' };
  if (stored.manifest === undefined) return { kind: 'other' };
  const record = recordOf(stored.manifest);
  if (record === undefined) return { kind: 'other', stored };
  const { kind: _, ...facts } = record;
  const location = locationOf(client, tagOf(artefactNameOf(record)));
  const pinned = `${nameOfPlace(client.place)}@${stored.digest}`;
  return { kind: 'artefact', found: { ...facts, location, pinned }, stored };
}

/** What is under the tag of an artefact; another one there counts as something else. */
export async function readArtefact(
  client: RegistryClient,
  id: ArtefactId,
  signal: AbortSignal,
): Promise<Tagged> {
  const tagged = await readTag(client, tagOf(artefactNameOf(id)), signal);
  if (tagged.kind !== 'artefact') return tagged;
  const { found, stored } = tagged;
  const isOf = found.release === id.release && found.part === id.part;
  return isOf ? tagged : { kind: 'other', stored };
}

export async function readRecord(
  client: RegistryClient,
  aliasTag: string,
  signal: AbortSignal,
): Promise<AliasRecord | undefined> {
  const stored = await getManifest(client, recordTagOf(aliasTag), signal);
  return stored?.manifest && aliasRecordOf(stored.manifest);
}

/** Reads each tag; of aliases that were made by hand, too. */
export async function readRepository(
  client: RegistryClient,
  signal: AbortSignal,
): Promise<RepositoryContent> {
  const all = new Map<string, Tagged>();
  await sideBySide(await listTags(client, signal), async (tag) => {
    const tagged = await readTag(client, tag, signal);
    // One that was taken away meanwhile is not there.
    if (tagged.kind !== 'nothing') all.set(tag, tagged);
  });
  const artefacts: (Tagged & { kind: 'artefact' })[] = [];
  const aliases: Alias[] = [];
  for (const [tag, tagged] of all) {
    if (tagged.kind !== 'artefact') continue;
    if (tag === tagOf(artefactNameOf(tagged.found))) artefacts.push(tagged);
    else aliases.push(...aliasAt(tag, tagged.found, all.get(recordTagOf(tag))));
  }
  return { artefacts, aliases, all };
}

/** Runs small requests, a few at a time. */
export async function sideBySide<T>(
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = items.values();
  const worker = async (): Promise<void> => {
    for (const item of waiting) await work(item);
  };
  await Promise.all(Array.from({ length: REQUESTS_AT_ONCE }, worker));
}

function aliasAt(tag: string, found: FoundArtefact, beside: Tagged | undefined): readonly Alias[] {
  if (isRecordTag(tag)) return [];
  const stored = beside?.kind === 'other' ? beside.stored : undefined;
  const record = stored && aliasRecordOf(stored.manifest);
  const { release, part } = found;
  const state = stateOf(release, record);
  const suffix = part === undefined ? '' : `-${part}`;
  // Without a record, the name is what is left of the tag; `release` says where it points.
  const alias =
    record?.alias ?? (tag.endsWith(suffix) ? tag.slice(0, tag.length - suffix.length) : tag);
  return aliasTagOf(alias, part) === tag || record === undefined
    ? [{ alias, ...(part !== undefined && { part }), ...state }]
    : [];
}
