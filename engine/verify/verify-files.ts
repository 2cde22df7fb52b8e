import { createHash } from 'node:crypto';
import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import type { Manifest } from '../manifest.ts';
import type { ModelFiles } from '../model-files.ts';
import type { PlannedShard } from '../plan/plan.ts';
import { readAhead } from '../read-ahead.ts';
import { NonFiniteScan } from './find-non-finite.ts';

/** Read at a time: a multiple of what threads and networks move. */
const PIECE_BYTES = 4 * 1024 * 1024;

export interface VerifyFilesOptions {
  readonly files: ModelFiles;
  /** What is looked at for values that are not finite. */
  readonly shards: readonly PlannedShard[];
  readonly onBytes?: ((count: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Checks that the files are those of a manifest, by their digests, and that merged values are finite.
 * Each file is read once, from beginning to end.
 *
 * @returns bytes that were read
 * @throws WeldlineError `verify.inventory-mismatch`, `verify.digest-mismatch`, `verify.non-finite`
 */
export async function verifyFiles(
  manifest: Manifest,
  options: VerifyFilesOptions,
): Promise<number> {
  const { files, shards } = options;
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
    const shard = shards.find(({ file }) => file === path);
    const scan = shard && new NonFiniteScan(shard);
    const source = await files.open(path);
    try {
      const actual = await digestSource(source, options, (...piece) => scan?.visit(...piece));
      if (actual !== sha256 || source.size !== size) throw mismatch(source.name, actual, sha256);
    } finally {
      await source.close();
    }
    scan?.finish();
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
