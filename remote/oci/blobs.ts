import { WeldlineError } from '../../engine/errors.ts';
import { nameOfPlace, type OciPlace } from './oci-place.ts';
import type { RegistryClient } from './registry-client.ts';

/** Bytes that go to a registry. */
export interface Blob {
  /** `sha256:<64 hex digits>`. */
  readonly digest: string;
  readonly size: number;
  /** What errors call it: a path. */
  readonly name: string;
  /** Streams a range of it; made anew for each attempt. */
  open(offset: number, length: number): AsyncIterable<Uint8Array>;
}

/** @throws WeldlineError `publish.verify-failed` if it is there in another size */
export async function hasBlob(
  client: RegistryClient,
  blob: Blob,
  signal: AbortSignal,
): Promise<boolean> {
  const to = `blobs/${blob.digest}`;
  const response = await client.ask({
    method: 'HEAD',
    ...{ to, signal, what: blob.name, accept: [404] },
  });
  await response.body?.cancel();
  if (response.status === 404) return false;
  const size = response.headers.get('content-length');
  if (size === null || Number(size) === blob.size) return true;
  throw notTheSame(client, blob, `has ${size} bytes in place of ${blob.size}`);
}

/**
 * Takes a blob over from another repository of the same registry, without sending it.
 * @returns false where it must be sent
 */
export async function mountBlob(
  client: RegistryClient,
  blob: Blob,
  from: Pick<OciPlace, 'repository'>,
  signal: AbortSignal,
): Promise<boolean> {
  const to = `blobs/uploads/?mount=${encodeURIComponent(blob.digest)}&from=${encodeURIComponent(from.repository)}`;
  // Those who may not read there are told in many ways; the blob is sent then.
  const accept = [400, 403, 404, 405];
  let response: Response;
  try {
    response = await client.ask({ method: 'POST', ...{ to, signal, what: blob.name, accept } });
  } catch (error) {
    if ((error as Partial<WeldlineError>).details?.['status'] === 401) return false;
    throw error;
  }
  await response.body?.cancel();
  if (response.status === 201) return true;
  if (response.status === 202) await cancelUpload(client, locationOf(client, response), signal);
  return false;
}

/** Whether one may write here, found by beginning an upload. */
export async function checkWritable(client: RegistryClient, signal: AbortSignal): Promise<void> {
  await cancelUpload(client, await beginUpload(client, 'its uploads', signal), signal);
}

export async function beginUpload(
  client: RegistryClient,
  what: string,
  signal: AbortSignal,
): Promise<URL> {
  const response = await client.ask({ method: 'POST', to: 'blobs/uploads/', signal, what });
  await response.body?.cancel();
  return locationOf(client, response);
}

/** Leaves nothing behind where it can; registries remove abandoned sessions after a while. */
async function cancelUpload(
  client: RegistryClient,
  location: URL,
  signal: AbortSignal,
): Promise<void> {
  const accept = [400, 403, 404, 405];
  const response = await client.ask({ method: 'DELETE', to: location, signal, accept });
  await response.body?.cancel();
}

/** Sessions move with each request; the address may hold what identifies the session: never shown. */
export function locationOf(client: RegistryClient, response: Response, former?: URL): URL {
  const location = response.headers.get('location');
  const { origin } = client.place;
  if (location === null && former !== undefined) return former;
  const url =
    location !== null && URL.canParse(location, origin) ? new URL(location, origin) : undefined;
  const isFine = url?.protocol === 'https:' || url?.protocol === new URL(origin).protocol;
  if (url !== undefined && isFine && url.username === '' && url.password === '') return url;
  throw new WeldlineError(
    client.codeOf(502),
    `${nameOfPlace(client.place)}: the registry does not say where an upload goes on. Check it and ` +
      'the proxy before it.',
  );
}

export function notTheSame(client: RegistryClient, blob: Blob, problem: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${nameOfPlace(client.place)}: ${blob.name} (${blob.digest}) ${problem}. Nothing was tagged. ` +
      'Check the file and the connection, and run again.',
  );
}

/** @returns false where the registry does not do it */
export async function deleteBlob(
  client: RegistryClient,
  digest: string,
  signal: AbortSignal,
): Promise<boolean> {
  const to = `blobs/${digest}`;
  const accept = [400, 403, 404, 405];
  const response = await client.ask({ method: 'DELETE', to, signal, what: digest, accept });
  await response.body?.cancel();
  return response.ok || response.status === 404;
}
