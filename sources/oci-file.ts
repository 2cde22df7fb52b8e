import type { ByteSource } from '../engine/byte-source.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import { pauseAfter } from '../remote/http.ts';
import type { RegistryClient } from '../remote/oci/registry-client.ts';
import { checkRange } from './byte-range.ts';
import type { RemoteFile, RemoteModel } from './remote-source.ts';

/** Less than this between two failures is no progress: a server of single bytes is not one. */
const PROGRESS_BYTES_MIN = 1024 * 1024;

/** A layer of a pinned manifest. The whole of it has its digest, which whoever reads it all compares. */
export function openOciFile(
  client: RegistryClient,
  { uri }: Pick<RemoteModel, 'uri'>,
  file: RemoteFile,
): ByteSource {
  const name = `${uri}/${file.path}`;
  const closing = new AbortController();
  const { signal } = closing;
  return {
    name,
    size: file.size,
    async read(offset, length, room) {
      assert(!signal.aborted, `${name} is read after it was closed`);
      checkRange(name, file.size, offset, length);
      const bytes = room?.subarray(0, length) ?? new Uint8Array(length);
      await fill(bytes, offset, { client, name, file, signal });
      return bytes;
    },
    async close() {
      closing.abort();
    },
  };
}

interface Layer {
  readonly client: RegistryClient;
  readonly name: string;
  readonly file: RemoteFile;
  readonly signal: AbortSignal;
}

/** Goes on at the byte reached when a connection breaks; without progress, only so many times. */
async function fill(bytes: Uint8Array, offset: number, layer: Layer): Promise<void> {
  const { client, name, signal } = layer;
  let filled = 0;
  for (let failures = 0; filled < bytes.byteLength; ) {
    const before = filled;
    try {
      const body = await requestRange(layer, offset + filled, bytes.byteLength - filled);
      for await (const chunk of body) {
        const part = chunk.subarray(0, bytes.byteLength - filled);
        bytes.set(part, filled);
        filled += part.byteLength;
        if (filled === bytes.byteLength) break;
      }
      if (filled < bytes.byteLength) throw cutShort(name, offset + filled);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof WeldlineError) || error.code !== 'source.unavailable') throw error;
      failures = filled - before >= PROGRESS_BYTES_MIN ? 1 : failures + 1;
      await pauseAfter(failures, error, client.patience, signal);
    }
  }
}

/** The bytes from `begin` on, at least `length` if the connection holds. */
async function requestRange(
  { client, name, file, signal }: Layer,
  begin: number,
  length: number,
): Promise<AsyncIterable<Uint8Array>> {
  const response = await client.ask({
    method: 'GET',
    to: `blobs/${file.version}`,
    headers: {
      range: `bytes=${begin}-${begin + length - 1}`,
      'accept-encoding': 'identity',
    },
    ...{ signal, what: file.path, accept: [416], once: true },
  });
  const problem = problemOf(response, file, begin);
  if (problem === undefined && response.body !== null) return response.body;
  await response.body?.cancel();
  throw new WeldlineError(
    problem === 'size' ? 'source.changed' : 'source.unavailable',
    problem === 'size'
      ? `${name} has another size in the registry than the ${file.size} bytes of its manifest. Push ` +
          'it again, or take another version.'
      : `${name}: the registry, or the storage behind it, does not answer byte ranges. Copy the ` +
          'model to a directory (oras pull), and name that.',
  );
}

function problemOf(
  { status, headers }: Response,
  file: RemoteFile,
  begin: number,
): 'size' | 'range' | undefined {
  if (status === 416) return 'size';
  if (status === 206) {
    const header = headers.get('content-range') ?? '';
    const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(header) ?? [];
    if (total !== undefined && total !== '*' && Number(total) !== file.size) return 'size';
    return Number(first) === begin ? undefined : 'range';
  }
  // The whole file: of use where its beginning was asked for.
  const length = headers.get('content-length');
  if (length !== null && Number(length) !== file.size) return 'size';
  return status === 200 && begin === 0 ? undefined : 'range';
}

function cutShort(name: string, position: number): WeldlineError {
  return new WeldlineError(
    'source.unavailable',
    `${name}: the answer ended early, at byte ${position}. Check the network and the proxy, and run ` +
      'again.',
  );
}
