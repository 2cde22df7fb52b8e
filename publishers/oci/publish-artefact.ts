import { setTimeout as sleep } from 'node:timers/promises';
import { uploadBlob } from '../../remote/oci/blob-upload.ts';
import { type Blob, hasBlob, mountBlob } from '../../remote/oci/blobs.ts';
import { putManifest } from '../../remote/oci/manifests.ts';
import { nameOfPlace, parseOciUri } from '../../remote/oci/oci-place.ts';
import type { RegistryClient } from '../../remote/oci/registry-client.ts';
import {
  type Artefact,
  artefactNameOf,
  type Published,
  type PublishOptions,
} from '../publisher.ts';
import { bytesBlob, ensureBlob, fileBlob } from './file-blob.ts';
import { type ModelDocuments, modelDocuments } from './model-manifest.ts';
import { conflict, verifyFailed } from './oci-errors.ts';
import { locationOf, readArtefact, sideBySide } from './oci-repository.ts';
import { tagOf } from './tags.ts';

type Result = Omit<Published, 'target'>;

/** Two requests a few milliseconds long say little about the next one. */
const CLAIM_MARGIN_MS = 50;

/** Files first, then the manifest by its digest, which nobody sees, and its tag last. */
export async function publishArtefact(
  client: RegistryClient,
  artefact: Artefact,
  options: PublishOptions,
): Promise<Result> {
  const { signal } = options;
  const existing = await publishedBefore(client, artefact, signal);
  if (existing?.isPruned === false) return existing.result;
  const documents = modelDocuments(artefact);
  const bytesSent = await sendFiles(client, artefact, options);
  await ensureBlob(client, bytesBlob(documents.config, 'its configuration'), signal);
  await putManifest(client, documents.digest, documents.bytes, signal);
  return (
    (await claimTag(client, artefact, documents, signal)) ?? {
      location: locationOf(client, tagOf(artefactNameOf(artefact))),
      pinned: `${nameOfPlace(client.place)}@${documents.digest}`,
      existed: existing !== undefined,
      bytesSent,
    }
  );
}

/**
 * What is under the version if it is this artefact, and whether its weights are not.
 * @throws WeldlineError `publish.conflict` if it is anything else
 */
async function publishedBefore(
  client: RegistryClient,
  artefact: Artefact,
  signal: AbortSignal,
): Promise<{ readonly result: Result; readonly isPruned: boolean } | undefined> {
  const occupant = await readArtefact(client, artefact, signal);
  if (occupant.kind === 'nothing') return undefined;
  const location = locationOf(client, tagOf(artefactNameOf(artefact)));
  if (occupant.kind === 'other') throw conflict(location, 'which is another thing');
  const { found } = occupant;
  if (found.manifestDigest !== artefact.manifestDigest) {
    throw conflict(location, 'made from other inputs');
  }
  const { pinned, isPruned } = found;
  return { result: { location, pinned, existed: true, bytesSent: 0 }, isPruned };
}

/**
 * Gives the manifest its tag, if that is still free.
 *
 * A registry takes the last of two who write a tag, without a word to the first. So who has written
 * it waits for longer than it takes to look and write, and looks again: by then, whoever looked before
 * this tag was there has written theirs (Fischer's algorithm, for which a request that hangs for
 * longer and then succeeds is the exception).
 *
 * @returns the same artefact, if another attempt was faster
 */
async function claimTag(
  client: RegistryClient,
  artefact: Artefact,
  documents: ModelDocuments,
  signal: AbortSignal,
): Promise<Result | undefined> {
  const tag = tagOf(artefactNameOf(artefact));
  const startedAt = performance.now();
  const existing = await publishedBefore(client, artefact, signal);
  if (existing?.isPruned === false) return existing.result;
  await putManifest(client, tag, documents.bytes, signal);
  await sleep(2 * (performance.now() - startedAt) + CLAIM_MARGIN_MS, undefined, { signal });
  const now = await publishedBefore(client, artefact, signal);
  if (now?.isPruned !== false) {
    throw verifyFailed(client, `the tag ${tag} is not what was written`);
  }
  return now.result.pinned.endsWith(`@${documents.digest}`) ? undefined : now.result;
}

/** @returns bytes that were sent */
async function sendFiles(
  client: RegistryClient,
  artefact: Artefact,
  { signal, onProgress, publishedAt }: PublishOptions,
): Promise<number> {
  const siblings = siblingsIn(client, publishedAt);
  const blobs = artefact.files.map(fileBlob);
  const present = await findPresent(client, blobs, signal);
  const bytesTotal = blobs.reduce((sum, { size }) => sum + size, 0);
  let bytesBefore = 0;
  let bytesSent = 0;
  for (const blob of blobs) {
    const report = (bytes: number): void => {
      onProgress({ item: blob.name, bytesDone: bytesBefore + bytes, bytesTotal });
    };
    report(0);
    signal.throwIfAborted();
    if (!present.has(blob.digest)) {
      bytesSent += await sendBlob(client, blob, { signal, siblings, onBytes: report });
      present.add(blob.digest);
    }
    bytesBefore += blob.size;
  }
  return bytesSent;
}

/** Digests of blobs that the registry has, asked for side by side: there may be a hundred. */
async function findPresent(
  client: RegistryClient,
  blobs: readonly Blob[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const present = new Set<string>();
  await sideBySide(blobs, async (blob) => {
    if (await hasBlob(client, blob, signal)) present.add(blob.digest);
  });
  return present;
}

interface SendOptions {
  readonly signal: AbortSignal;
  /** Repositories of the same registry that may have it. */
  readonly siblings?: readonly string[];
  readonly onBytes?: (bytes: number) => void;
}

/** @returns bytes that were sent: none if a repository beside has it */
async function sendBlob(
  client: RegistryClient,
  blob: Blob,
  { signal, siblings = [], onBytes = () => undefined }: SendOptions,
): Promise<number> {
  for (const repository of siblings) {
    const mounted = await mountBlob(client, blob, { repository }, signal);
    if (mounted && (await hasBlob(client, blob, signal))) return 0;
  }
  await uploadBlob(client, blob, { signal, onBytes });
  return blob.size;
}

/** Other repositories of this registry where the artefact has been published just now. */
function siblingsIn(client: RegistryClient, publishedAt: readonly Published[]): readonly string[] {
  const { registry, repository } = client.place;
  const places = publishedAt.flatMap(({ pinned }) => parseOciUri(pinned) ?? []);
  return places
    .filter((place) => place.registry === registry && place.repository !== repository)
    .map((place) => place.repository);
}
