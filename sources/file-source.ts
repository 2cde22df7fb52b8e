import { open } from 'node:fs/promises';
import type { ByteSource } from '../engine/byte-source.ts';
import { assert, systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { checkRange } from './byte-range.ts';

/** `read(2)` moves at most this much at a time on Linux (2 GiB less a page); stay well below. */
const READ_BYTES_MAX = 1024 * 1024 * 1024;

/**
 * Opens a file of this machine.
 * @throws WeldlineError `source.not-found`, `disk.read-failed`
 */
export async function openFileSource(path: string): Promise<ByteSource> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw openFailure(path, error);
  });
  const stat = await handle.stat();
  if (!stat.isFile()) {
    await handle.close();
    throw new WeldlineError('source.not-found', `${path} is not a file.`);
  }
  let closed = false;
  return {
    name: path,
    size: stat.size,
    async read(offset, length, room) {
      assert(!closed, `${path} is read after it was closed`);
      checkRange(path, stat.size, offset, length);
      const bytes = room?.subarray(0, length) ?? new Uint8Array(length);
      for (let filled = 0; filled < length; ) {
        const part = Math.min(length - filled, READ_BYTES_MAX);
        const { bytesRead } = await handle
          .read(bytes, filled, part, offset + filled)
          .catch((error: unknown) => {
            throw readFailure(path, offset + filled, error);
          });
        if (bytesRead === 0) throw shrunk(path, offset + filled, stat.size);
        filled += bytesRead;
      }
      return bytes;
    },
    async close() {
      if (closed) return;
      closed = true;
      await handle.close();
    },
  };
}

function openFailure(path: string, error: unknown): WeldlineError {
  const code = systemErrorCode(error);
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new WeldlineError('source.not-found', `There is no file ${path}.`, { cause: error });
  }
  const remedy = code === 'EACCES' ? ' Give this user the right to read it.' : '';
  return new WeldlineError(
    'disk.read-failed',
    `${path} cannot be opened (${code ?? String(error)}).${remedy}`,
    { cause: error },
  );
}

function readFailure(path: string, offset: number, error: unknown): WeldlineError {
  return new WeldlineError(
    'disk.read-failed',
    `${path} cannot be read at byte ${offset} (${systemErrorCode(error) ?? String(error)}). Check ` +
      'the disk or the network file system it is on.',
    { cause: error },
  );
}

function shrunk(path: string, offset: number, size: number): WeldlineError {
  return new WeldlineError(
    'disk.read-failed',
    `${path} ends at byte ${offset}, but had ${size} bytes when it was opened: something changed ` +
      'it meanwhile. Leave inputs alone while they are read, and run again.',
  );
}
