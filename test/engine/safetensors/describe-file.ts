import { createHash } from 'node:crypto';
import { readHeader, type SafetensorsHeader } from '../../../engine/safetensors/header.ts';

/** Reads the header of a file in memory, by the function that reads it from disk. */
export async function readHeaderOf(file: Uint8Array): Promise<SafetensorsHeader> {
  return readHeader({
    name: 'fuzz.safetensors',
    size: file.length,
    read: async (offset, length) => {
      if (offset + length > file.length) throw new Error('read past the end');
      return file.slice(offset, offset + length);
    },
    close: async () => undefined,
  });
}

/** What a file holds, as `record_rust_verdicts.py` puts it: eight bytes of a SHA-256. */
export function digestOfContent(file: Uint8Array, header: SafetensorsHeader): string {
  const lines = header.tensors.map(({ name, dtype, shape, offset, byteLength }) => {
    const data = createHash('sha256').update(file.subarray(offset, offset + byteLength));
    return Buffer.from(`${name}|${dtype}|${shape.join(',')}|${data.digest('hex')}\n`);
  });
  const hash = createHash('sha256');
  for (const line of lines.sort(Buffer.compare)) hash.update(line);
  return hash.digest('hex').slice(0, 16);
}
