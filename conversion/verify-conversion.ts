import { join } from 'node:path';
import { type DigestOptions, digestFile } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';
import { CONVERSION_FILE, readConversionManifest } from './conversion-store.ts';

export interface VerifiedConversion {
  readonly id: string;
  readonly filesChecked: number;
  readonly bytesChecked: number;
}

/**
 * Reads a conversion, published or in the workspace, against its manifest.
 *
 * @throws WeldlineError `manifest.invalid`, `verify.digest-mismatch` naming the file
 */
export async function verifyConversion(
  directory: string,
  options: DigestOptions,
): Promise<VerifiedConversion> {
  const conversion = await readConversionManifest(directory);
  if (conversion === undefined) {
    throw new WeldlineError(
      'manifest.invalid',
      `${join(directory, CONVERSION_FILE)} is not a manifest that this version of weldline can read.`,
    );
  }
  const { id, files } = conversion.manifest;
  let bytesChecked = 0;
  for (const { path, size, sha256 } of files) {
    const file = join(directory, path);
    const found = await digestFile(file, options);
    if (found.size !== size || found.sha256 !== sha256) {
      throw new WeldlineError(
        'verify.digest-mismatch',
        `${file} is not the file that was made. Release again, or restore it.`,
      );
    }
    bytesChecked += size;
  }
  return { id, filesChecked: files.length, bytesChecked };
}
