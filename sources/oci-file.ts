import type { ByteSource } from '../engine/byte-source.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import type { RegistryClient } from '../remote/oci/registry-client.ts';
import { checkRange } from './byte-range.ts';
import { fillByRange } from './fill-by-range.ts';
import type { RemoteFile, RemoteModel } from './remote-source.ts';

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
      const layer = { client, name, file, signal };
      await fillByRange(bytes, {
        ...{ name, offset, signal, patience: client.patience },
        request: (begin, count) => requestRange(layer, begin, count),
      });
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
    ...{ signal, what: file.path, accept: [416] },
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
