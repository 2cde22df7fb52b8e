import { createHash } from 'node:crypto';
import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import type { Manifest } from '../manifest.ts';
import type { ModelFiles } from '../model-files.ts';
import { readAhead } from '../read-ahead.ts';

/** Read at a time: a multiple of what threads and networks move. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Looks at the bytes of a file while they pass by. */
export interface FileWatcher {
  visit(piece: Uint8Array, offset: number): void;
  /** After the last of them, if the file has its digest. */
  finish(): Promise<void>;
}

export interface VerifyFilesOptions {
  readonly files: ModelFiles;
  /** What looks at a file beside its digest; undefined for nothing. */
  readonly watch: (path: string) => FileWatcher | undefined;
  readonly onBytes?: ((count: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Checks that the files are those of a manifest, by their digests. Each is read once, from beginning to
 * end, wherever it is.
 *
 * @returns bytes that were read
 * @throws WeldlineError `verify.inventory-mismatch`, `verify.digest-mismatch`; what watchers throw
 */
export async function verifyFiles(
  manifest: Manifest,
  options: VerifyFilesOptions,
): Promise<number> {
  const { files, watch } = options;
  const listed = new Set(manifest.files.map((file) => file.path));
  const found = [...files.sizes.keys()].filter((path) => !path.includes('/'));
  const foreign = found.find((name) => /\.safetensors(\.|$)/.test(name) && !listed.has(name));
  if (foreign !== undefined) {
    throw new WeldlineError(
      'verify.inventory-mismatch',
      `${files.name} holds ${foreign}, which its manifest does not list. Remove it.`,
    );
  }
  let bytes = 0;
  for (const { path, size, sha256 } of manifest.files) {
    if (!files.sizes.has(path)) {
      throw new WeldlineError(
        'verify.inventory-mismatch',
        `${files.name} lacks ${path}, which its manifest lists.`,
      );
    }
    const watcher = watch(path);
    const source = await files.open(path);
    try {
      const actual = await digestSource(source, options, (...piece) => watcher?.visit(...piece));
      if (actual !== sha256 || source.size !== size) throw mismatch(source.name, actual, sha256);
    } finally {
      await source.close();
    }
    await watcher?.finish();
    bytes += size;
  }
  return bytes;
}

async function digestSource(
  source: ByteSource,
  { signal, onBytes }: VerifyFilesOptions,
  visit: (piece: Uint8Array, offset: number) => void,
): Promise<string> {
  const hash = createHash('sha256');
  for await (const { bytes, offset } of readAhead(source, PIECE_BYTES, signal)) {
    hash.update(bytes);
    visit(bytes, offset);
    onBytes?.(bytes.length);
  }
  return hash.digest('hex');
}

function mismatch(name: string, actual: string, expected: string): WeldlineError {
  return new WeldlineError(
    'verify.digest-mismatch',
    `${name} is not the file that was made: its SHA-256 is ${actual.slice(0, 16)}…, the manifest ` +
      `says ${expected.slice(0, 16)}…. Restore it, or remove it and merge again.`,
  );
}
