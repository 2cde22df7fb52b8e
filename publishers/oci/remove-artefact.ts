import { deleteBlob } from '../../remote/oci/blobs.ts';
import { type Descriptor, pathOfLayer } from '../../remote/oci/manifest.ts';
import { deleteManifest, getConfig, putManifest } from '../../remote/oci/manifests.ts';
import type { RegistryClient } from '../../remote/oci/registry-client.ts';
import { type ArtefactId, artefactNameOf } from '../publisher.ts';
import { isPrunable } from '../release-record.ts';
import { bytesBlob, ensureBlob } from './file-blob.ts';
import { prunedDocuments, recordOf } from './model-manifest.ts';
import { aliased, notPublished } from './oci-errors.ts';
import {
  locationOf,
  type RepositoryContent,
  readRepository,
  type Tagged,
} from './oci-repository.ts';
import { tagOf } from './tags.ts';

type TaggedArtefact = Tagged & { readonly kind: 'artefact' };

export async function withdrawArtefact(
  client: RegistryClient,
  id: ArtefactId,
  signal: AbortSignal,
): Promise<void> {
  const content = await readRepository(client, signal);
  const tagged = artefactIn(content, id);
  if (tagged === undefined) return;
  const { digest, manifest } = tagged.stored;
  await deleteManifest(client, digest, signal);
  await deleteUnused(client, [...manifest.layers, manifest.config], content, digest, signal);
}

/** @returns bytes that are freed, when the registry has removed what nothing needs */
export async function pruneArtefact(
  client: RegistryClient,
  id: ArtefactId,
  isDryRun: boolean,
  signal: AbortSignal,
): Promise<number> {
  const content = await readRepository(client, signal);
  const tag = tagOf(artefactNameOf(id));
  const tagged = artefactIn(content, id);
  if (tagged === undefined) throw notPublished(locationOf(client, tag), 'Nothing was pruned.');
  const { manifest, digest } = tagged.stored;
  const kind = recordOf(manifest)?.kind;
  const weights = manifest.layers.filter((layer) => isPrunable(pathOfLayer(layer), kind));
  const bytes = weights.reduce((sum, { size }) => sum + size, 0);
  if (isDryRun || weights.length === 0) return bytes;
  const rest = manifest.layers.filter((layer) => !weights.includes(layer));
  const documents = prunedDocuments(
    manifest,
    await getConfig(client, manifest.config, signal),
    rest,
  );
  await ensureBlob(client, bytesBlob(documents.config, 'its configuration'), signal);
  await putManifest(client, tag, documents.bytes, signal);
  // What is pruned gets no alias any more. One that came before would go with the manifest.
  const now = await readRepository(client, signal);
  const alias = [...now.all].find(([other, each]) => other !== tag && isAt(each, digest))?.[0];
  if (alias !== undefined) {
    await putManifest(client, tag, tagged.stored.bytes, signal);
    throw aliased(tagged.found.location, alias);
  }
  await deleteManifest(client, digest, signal);
  const kept = new Set(rest.map((layer) => layer.digest));
  const gone = weights.filter((layer) => !kept.has(layer.digest));
  await deleteUnused(client, gone, now, digest, signal);
  return bytes;
}

function isAt(tagged: Tagged, digest: string): boolean {
  return tagged.kind !== 'nothing' && tagged.stored?.digest === digest;
}

/** @throws WeldlineError `publish.aliased` */
function artefactIn(
  { artefacts, aliases }: RepositoryContent,
  { release, part }: ArtefactId,
): TaggedArtefact | undefined {
  const isOf = (each: ArtefactId) => each.release === release && each.part === part;
  const alias = aliases.find(isOf);
  const tagged = artefacts.find(({ found }) => isOf(found));
  if (alias !== undefined && tagged !== undefined) {
    throw aliased(tagged.found.location, alias.alias);
  }
  return tagged;
}

/**
 * Removes blobs that no manifest with a tag needs. Where there is something that cannot be read, or
 * the registry deletes no blobs, its own purge does it.
 */
async function deleteUnused(
  client: RegistryClient,
  blobs: readonly Descriptor[],
  { all }: RepositoryContent,
  removed: string,
  signal: AbortSignal,
): Promise<void> {
  const used = new Set<string>();
  for (const tagged of all.values()) {
    if (tagged.kind === 'nothing') continue;
    if (tagged.stored === undefined) return;
    if (tagged.stored.digest === removed) continue;
    const { layers, config } = tagged.stored.manifest;
    for (const { digest } of [...layers, config]) used.add(digest);
  }
  for (const digest of new Set(blobs.map((blob) => blob.digest))) {
    if (!used.has(digest) && !(await deleteBlob(client, digest, signal))) return;
  }
}
