import { WeldlineError } from '../../engine/errors.ts';
import { pauseAfter } from '../http.ts';
import { type Blob, beginUpload, hasBlob, locationOf, notTheSame } from './blobs.ts';
import type { RegistryClient } from './registry-client.ts';

export interface UploadOptions {
  readonly signal: AbortSignal;
  /** Bytes that the registry has of the blob now. */
  readonly onBytes: (bytes: number) => void;
  /** Bytes of one request; only tests have less. */
  readonly chunkBytes?: number;
}

/**
 * Large enough for the storage behind registries (5 MiB at least for a part of S3), small enough that
 * one which is lost is no loss.
 */
const CHUNK_BYTES = 64 * 1024 * 1024;
/** Registries hash the whole blob before they answer the last request, at 100 MB/s and more. */
const HASHED_BYTES_PER_MS = 50_000;

/**
 * Sends a blob, in chunks if it is large, and has the registry compare it with its digest. What the
 * registry kept of a chunk that failed is asked for, and the rest sent; a session that was lost, as
 * the CNCF registry loses it with a broken connection or a lost answer, begins again.
 * @throws WeldlineError by `codeOf`; `publish.verify-failed` if other bytes arrived
 */
export async function uploadBlob(
  client: RegistryClient,
  blob: Blob,
  options: UploadOptions,
): Promise<void> {
  const { signal, chunkBytes = CHUNK_BYTES } = options;
  const upload: Upload = { sent: 0, location: undefined, isWhole: blob.size <= chunkBytes };
  let failures = 0;
  for (;;) {
    const before = upload.sent;
    try {
      return await sendRest(client, blob, upload, options);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof WeldlineError)) throw error;
      if (takesNoChunks(error, upload)) {
        [upload.isWhole, upload.location] = [true, undefined];
        continue;
      }
      if (!isPassing(error, client, upload)) throw error;
      failures = upload.sent > before ? 1 : failures + 1;
      await pauseAfter(failures, error, client.patience, signal);
      // The request may have succeeded, and its answer been lost.
      if (await hasBlob(client, blob, signal)) return;
      await recover(client, blob, upload, signal);
    }
  }
}

interface Upload {
  /** Bytes that the registry has taken. */
  sent: number;
  /** Of the session, as the registry last gave it. */
  location: URL | undefined;
  /** Whether it goes in one request. */
  isWhole: boolean;
}

/** Some registries know uploads in one piece only, or have limits of their own for chunks. */
function takesNoChunks(error: WeldlineError, upload: Upload): boolean {
  if (upload.isWhole || upload.sent > 0 || upload.location === undefined) return false;
  return [400, 405, 411, 413, 416, 501].includes(Number(error.details['status']));
}

function isPassing(error: WeldlineError, client: RegistryClient, upload: Upload): boolean {
  // A session that is gone is begun again.
  if (error.details['status'] === 404 && upload.location !== undefined) return true;
  return [503, 408, 429].some((passing) => client.codeOf(passing) === error.code);
}

/** Finds out how much of it the registry has. */
async function recover(
  client: RegistryClient,
  blob: Blob,
  upload: Upload,
  signal: AbortSignal,
): Promise<void> {
  const { location, isWhole } = upload;
  [upload.sent, upload.location] = [0, undefined];
  if (location === undefined || isWhole) return;
  const response = await client.ask({
    method: 'GET',
    ...{ to: location, signal, what: blob.name, accept: [400, 403, 404, 405, 410, 416] },
  });
  await response.body?.cancel();
  const taken = takenBytes(response);
  if (response.status !== 204 || taken === undefined || taken > blob.size) return;
  upload.sent = taken;
  upload.location = locationOf(client, response, location);
}

async function sendRest(
  client: RegistryClient,
  blob: Blob,
  upload: Upload,
  { signal, onBytes, chunkBytes = CHUNK_BYTES }: UploadOptions,
): Promise<void> {
  upload.location ??= await beginUpload(client, blob.name, signal);
  while (!upload.isWhole && upload.sent < blob.size) {
    await sendChunk(client, blob, upload, Math.min(chunkBytes, blob.size - upload.sent), signal);
    onBytes(upload.sent);
  }
  await finishUpload(client, blob, upload, signal);
  onBytes(blob.size);
}

async function sendChunk(
  client: RegistryClient,
  blob: Blob,
  upload: Upload,
  length: number,
  signal: AbortSignal,
): Promise<void> {
  const offset = upload.sent;
  const response = await client.ask({
    method: 'PATCH',
    to: upload.location!,
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(length),
      'content-range': `${offset}-${offset + length - 1}`,
    },
    body: () => blob.open(offset, length),
    ...{ signal, what: blob.name, once: true },
  });
  await response.body?.cancel();
  upload.location = locationOf(client, response, upload.location);
  // Registries do not compare the range with what they have; so this does.
  const taken = takenBytes(response) ?? offset + length;
  if (taken !== offset + length) {
    throw notTheSame(client, blob, `is ${taken} bytes long after ${offset + length} were sent`);
  }
  upload.sent = taken;
}

async function finishUpload(
  client: RegistryClient,
  blob: Blob,
  upload: Upload,
  signal: AbortSignal,
): Promise<void> {
  const to = new URL(upload.location!);
  to.searchParams.set('digest', blob.digest);
  const response = await client.ask({
    method: 'PUT',
    to,
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(upload.isWhole ? blob.size : 0),
    },
    ...(upload.isWhole && { body: () => blob.open(0, blob.size) }),
    ...{ signal, what: blob.name, once: true, accept: [400] },
    stallExtraMs: blob.size / HASHED_BYTES_PER_MS,
  });
  if (response.status !== 400) {
    await response.body?.cancel();
    const stored = response.headers.get('docker-content-digest') ?? blob.digest;
    if (stored !== blob.digest) throw notTheSame(client, blob, `was stored as ${stored}`);
    return;
  }
  const isOther = /DIGEST_INVALID|SIZE_INVALID/.test(await response.text());
  throw notTheSame(
    client,
    blob,
    isOther ? 'arrived with other bytes than its digest says' : 'was refused (400)',
  );
}

/** `Range: 0-1048575`: the last byte that is there; `0-0` where none is. */
function takenBytes(response: Response): number | undefined {
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(response.headers.get('range') ?? '')?.[1];
  if (last === undefined) return undefined;
  return last === '0' ? 0 : Number(last) + 1;
}
