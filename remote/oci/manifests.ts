import { WeldlineError } from '../../engine/errors.ts';
import { pauseAfter } from '../http.ts';
import {
  type Descriptor,
  digestOfBytes,
  MANIFEST_BYTES_MAX,
  MANIFEST_TYPE,
  parseManifest,
  type StoredManifest,
} from './manifest.ts';
import { nameOfPlace, OCI_DIGEST, OCI_TAG } from './oci-place.ts';
import type { RegistryClient } from './registry-client.ts';

/** Registries cut longer lists into pages of their own. */
const TAGS_PER_PAGE = 1000;
/** A registry whose pages never end is broken. */
const PAGES_MAX = 1000;

/**
 * @param version a tag or a digest
 * @returns undefined where there is none; `manifest` is undefined for what is none, such as an index
 * @throws WeldlineError `codeOf(502)` for bytes that are not those of the digest
 */
export async function getManifest(
  client: RegistryClient,
  version: string,
  signal: AbortSignal,
): Promise<
  StoredManifest | (Omit<StoredManifest, 'manifest'> & { manifest?: undefined }) | undefined
> {
  const response = await client.ask({
    method: 'GET',
    to: `manifests/${version}`,
    headers: { accept: `${MANIFEST_TYPE}, application/vnd.oci.image.index.v1+json` },
    ...{ signal, what: version, accept: [404] },
  });
  if (response.status === 404) {
    await response.body?.cancel();
    return undefined;
  }
  const bytes = await readBytes(client, response, version);
  const digest = digestOfBytes(bytes);
  if (OCI_DIGEST.test(version) && digest !== version) {
    throw broken(client, version, 'answers with another manifest than was asked for');
  }
  const manifest = parseManifest(bytes);
  return manifest === undefined ? { digest, bytes } : { digest, bytes, manifest };
}

async function readBytes(
  client: RegistryClient,
  response: Response,
  version: string,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    size += part.byteLength;
    if (size > MANIFEST_BYTES_MAX) throw broken(client, version, 'answers without end');
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Undefined for what is no JSON object. */
function parsed(bytes: Uint8Array): object | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Writes a manifest under a tag or its digest; its blobs must be there. Idempotent. */
export async function putManifest(
  client: RegistryClient,
  version: string,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const response = await askForManifest(client, version, bytes, signal);
  await response.body?.cancel();
  const digest = digestOfBytes(bytes);
  const stored = response.headers.get('docker-content-digest') ?? digest;
  if (stored !== digest) throw broken(client, version, `stored ${stored} in place of ${digest}`);
}

/**
 * A registry on a file system writes in place which blobs a repository has. Where another upload brings
 * one of this manifest's just then, the registry reads nothing, and calls the digest invalid: asked
 * again, it takes the manifest (github.com/distribution/distribution issue 4489).
 */
async function askForManifest(
  client: RegistryClient,
  version: string,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<Response> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await client.ask({
        method: 'PUT',
        to: `manifests/${version}`,
        headers: { 'content-type': MANIFEST_TYPE },
        body: bytes,
        ...{ signal, what: version },
      });
    } catch (error) {
      const mayPass =
        error instanceof WeldlineError &&
        error.details['status'] === 400 &&
        error.message.includes('DIGEST_INVALID');
      if (!mayPass) throw error;
      await pauseAfter(attempt, error, client.patience, signal);
    }
  }
}

/**
 * Deletes a manifest and with it all tags of it.
 * @throws WeldlineError `codeOf(400)` where the registry forbids it
 */
export async function deleteManifest(
  client: RegistryClient,
  digest: string,
  signal: AbortSignal,
): Promise<void> {
  const response = await client.ask({
    method: 'DELETE',
    to: `manifests/${digest}`,
    ...{ signal, what: digest, accept: [404, 405] },
  });
  await response.body?.cancel();
  if (response.status !== 405) return;
  throw new WeldlineError(
    client.codeOf(405),
    `${nameOfPlace(client.place)}: the registry does not let anyone delete. Allow it there ` +
      '(REGISTRY_STORAGE_DELETE_ENABLED=true for the CNCF registry), or remove the version by its ' +
      'own tools.',
  );
}

/** All tags of the repository; none where it does not exist yet. */
export async function listTags(client: RegistryClient, signal: AbortSignal): Promise<string[]> {
  const tags = new Set<string>();
  let to: string | URL = `tags/list?n=${TAGS_PER_PAGE}`;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const response: Response = await client.ask({
      method: 'GET',
      ...{ to, signal, what: 'its tags', accept: [404] },
    });
    if (response.status === 404) {
      await response.body?.cancel();
      return [...tags];
    }
    const answer = parsed(await readBytes(client, response, 'its tags'));
    if (answer === undefined) throw broken(client, 'its tags', 'sends no list of tags');
    const { tags: found } = answer as { tags?: unknown };
    const listed: unknown[] = Array.isArray(found) ? found : [];
    for (const tag of listed) if (typeof tag === 'string' && OCI_TAG.test(tag)) tags.add(tag);
    const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get('link') ?? '')?.[1];
    if (next === undefined) return [...tags];
    if (!URL.canParse(next, client.place.origin)) {
      throw broken(client, 'its tags', 'goes on with its tags at no address');
    }
    // Never to another server: the list is the registry's own.
    const target = new URL(next, client.place.origin);
    to = new URL(`${target.pathname}${target.search}`, client.place.origin);
  }
  throw broken(client, 'its tags', 'lists tags without end');
}

/**
 * The JSON document that is the configuration of a manifest.
 * @throws WeldlineError `codeOf(502)` for bytes that are not those of its digest
 */
export async function getConfig(
  client: RegistryClient,
  { digest }: Descriptor,
  signal: AbortSignal,
): Promise<Readonly<Record<string, unknown>>> {
  const response = await client.ask({ method: 'GET', to: `blobs/${digest}`, signal, what: digest });
  const bytes = await readBytes(client, response, digest);
  const value = digestOfBytes(bytes) === digest ? parsed(bytes) : undefined;
  if (value === undefined)
    throw broken(client, digest, 'answers with another blob than was asked for');
  return value as Readonly<Record<string, unknown>>;
}

function broken(client: RegistryClient, what: string, problem: string): WeldlineError {
  return new WeldlineError(
    client.codeOf(502),
    `${nameOfPlace(client.place)} (${what}): the registry ${problem}. Check it and what lies ` +
      'between here and there, and run again.',
  );
}
