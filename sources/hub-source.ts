import type { ByteSource } from '../engine/byte-source.ts';
import { assert } from '../engine/errors.ts';
import { checkRange } from './byte-range.ts';
import type { HubConnection } from './hub-connection.ts';
import { hubFileReader } from './hub-file-reader.ts';
import type { HubFile, HubModel } from './hub-model.ts';

/**
 * A file of a hub model as a source of bytes, for reading headers without downloading the file. The
 * bytes are as trustworthy as the connection: only a whole file can be checked against its digest,
 * which `fetchModel` does.
 *
 * Makes no request until the first read.
 */
export function openHubSource(
  connection: HubConnection,
  model: Pick<HubModel, 'repo' | 'commit'>,
  file: HubFile,
): ByteSource {
  const reader = hubFileReader(connection, model, file);
  const closing = new AbortController();
  return {
    name: reader.name,
    size: file.size,
    async read(offset, length, room) {
      assert(!closing.signal.aborted, `${reader.name} is read after it was closed`);
      checkRange(reader.name, file.size, offset, length);
      const bytes = room?.subarray(0, length) ?? new Uint8Array(length);
      if (length === 0) return bytes;
      let filled = 0;
      const sink = (chunk: Uint8Array) => {
        bytes.set(chunk, filled);
        filled += chunk.byteLength;
      };
      await reader.stream(offset, length, sink, closing.signal);
      return bytes;
    },
    async close() {
      closing.abort();
    },
  };
}
