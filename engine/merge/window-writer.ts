import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { toWriteError } from '../disk-errors.ts';
import { assert, systemErrorCode } from '../errors.ts';
import { PAGE_BYTES } from './windows.ts';

/** What file systems without direct I/O answer: tmpfs, some network and stacked ones. */
const NOT_DIRECT = ['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'];

/**
 * Writes windows past the page cache where the file system can (O_DIRECT): the pages of a
 * checkpoint that is written once are only in the way of those that are read, and their write-back
 * stalls the reads. The last bytes of a file, less than a page, and all bytes where there is no
 * direct I/O go through the cache.
 */
export class WindowWriter {
  readonly #path: string;
  readonly #buffered: number;
  #direct: number | undefined;

  /** @param path an existing file, which may be written by others at the same time */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#buffered = openSync(path, 'r+');
    } catch (error) {
      throw toWriteError(error, path);
    }
    this.#direct = openDirect(path);
  }

  /** Whether what was written is on the disk, save for the file's last bytes. */
  get isDirect(): boolean {
    return this.#direct !== undefined;
  }

  /**
   * @param bytes starts on a page of memory
   * @param position a multiple of the page size
   * @throws WeldlineError `disk.full`, `output.not-writable`, `disk.write-failed`
   */
  write(bytes: Uint8Array, position: number): void {
    try {
      const pages = bytes.length - (bytes.length % PAGE_BYTES);
      const done = this.#writeDirectly(bytes.subarray(0, pages), position);
      writeFully(this.#buffered, bytes.subarray(done), position + done);
    } catch (error) {
      throw toWriteError(error, this.#path);
    }
  }

  close(): void {
    closeSync(this.#buffered);
    if (this.#direct !== undefined) closeSync(this.#direct);
  }

  /** @returns the bytes written: all, or none once the file system has said that it cannot */
  #writeDirectly(bytes: Uint8Array, position: number): number {
    if (this.#direct === undefined || bytes.length === 0) return 0;
    try {
      writeFully(this.#direct, bytes, position);
      return bytes.length;
    } catch (error) {
      if (!NOT_DIRECT.includes(systemErrorCode(error) ?? '')) throw error;
      closeSync(this.#direct);
      this.#direct = undefined;
      return 0;
    }
  }
}

function openDirect(path: string): number | undefined {
  // Not on every platform, whatever the types say.
  const flag: number | undefined = constants.O_DIRECT;
  if (flag === undefined) return undefined;
  try {
    return openSync(path, constants.O_RDWR | flag);
  } catch {
    return undefined;
  }
}

function writeFully(file: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    const count = writeSync(file, bytes, done, bytes.length - done, position + done);
    assert(count > 0, 'a file took no bytes and gave no error');
    done += count;
  }
}
