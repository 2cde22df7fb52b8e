import type { ByteSource } from './byte-source.ts';
import { WeldlineError } from './errors.ts';

/**
 * The files of one model or adapter, wherever they are: a directory, or a hub repository at a
 * commit. Paths are relative, with forward slashes.
 */
export interface ModelFiles {
  /** What a person would call it: a path or a URI without credentials. */
  readonly name: string;
  /** Every regular file, by relative path, with its size in bytes. */
  readonly sizes: ReadonlyMap<string, number>;
  /**
   * Opens one of them.
   * @throws WeldlineError `source.not-found` if `path` is not among `sizes`
   */
  open(path: string): Promise<ByteSource>;
}

/** Configuration and index files are small; anything larger is not one. A 400B index has 4 MB. */
export const TEXT_FILE_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Reads a whole small file as UTF-8 text.
 * @throws WeldlineError `checkpoint.config-invalid` if it is too large or not UTF-8
 */
export async function readTextFile(files: ModelFiles, path: string): Promise<string> {
  const size = files.sizes.get(path) ?? 0;
  if (size > TEXT_FILE_BYTES_MAX) {
    throw new WeldlineError(
      'checkpoint.config-invalid',
      `${files.name}/${path} has ${size} bytes; a text file of a model has at most ` +
        `${TEXT_FILE_BYTES_MAX}. Check that the right file has this name.`,
    );
  }
  const source = await files.open(path);
  try {
    const bytes = await source.read(0, source.size);
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new WeldlineError(
      'checkpoint.config-invalid',
      `${files.name}/${path} is not UTF-8 text. Restore the original file.`,
      { cause: error },
    );
  } finally {
    await source.close();
  }
}
