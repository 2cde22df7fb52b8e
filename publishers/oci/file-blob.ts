import { createReadStream } from 'node:fs';
import { toReadError } from '../../engine/disk-errors.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { uploadBlob } from '../../remote/oci/blob-upload.ts';
import { type Blob, hasBlob } from '../../remote/oci/blobs.ts';
import { digestOfBytes } from '../../remote/oci/manifest.ts';
import type { RegistryClient } from '../../remote/oci/registry-client.ts';
import type { ArtefactFile } from '../publisher.ts';

/** A file of an artefact, read while it is sent; need not exist where the registry has it. */
export function fileBlob({ path, size, sha256, source }: ArtefactFile): Blob {
  return {
    digest: `sha256:${sha256}`,
    size,
    name: path,
    async *open(offset, length) {
      if (length === 0) return;
      let read = 0;
      try {
        for await (const chunk of createReadStream(source, {
          start: offset,
          end: offset + length - 1,
        })) {
          read += (chunk as Buffer).byteLength;
          yield chunk as Buffer;
        }
      } catch (error) {
        throw toReadError(error, source);
      }
      if (read < length) throw shorter(source, size);
    },
  };
}

export function bytesBlob(bytes: Uint8Array, name: string): Blob {
  return {
    digest: digestOfBytes(bytes),
    size: bytes.byteLength,
    name,
    async *open(offset, length) {
      yield bytes.subarray(offset, offset + length);
    },
  };
}

/** Sends a small one, unless it is there. */
export async function ensureBlob(
  client: RegistryClient,
  blob: Blob,
  signal: AbortSignal,
): Promise<void> {
  if (await hasBlob(client, blob, signal)) return;
  await uploadBlob(client, blob, { signal, onBytes: () => undefined });
}

function shorter(source: string, size: number): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${source} is shorter than the ${size} bytes that were released: it has changed. Nothing is ` +
      'published. Release again; if it happens again, check the disk.',
  );
}
