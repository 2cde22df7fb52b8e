import { assert } from '../errors.ts';
import { bitsOf, type Dtype, elementCount } from './dtype.ts';
import type { TensorEntry } from './header.ts';

/** A tensor to be written: everything of it but its place. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** The header and the place of every tensor of a file that is yet to be written. */
export interface FileLayout {
  /** The first bytes of the file: the 8-byte length and the JSON. */
  readonly header: Uint8Array;
  /** In file order, with absolute offsets. */
  readonly tensors: readonly TensorEntry[];
  readonly size: number;
}

/** The reference implementation pads headers so that data starts at a multiple of this. */
const HEADER_ALIGNMENT_BYTES = 8;

/** Readers of every framework look for this; transformers refuses files without it. */
const METADATA = { format: 'pt' };

export function byteLengthOf(spec: TensorSpec): number {
  const bits = elementCount(spec.shape) * bitsOf(spec.dtype);
  assert(bits % 8 === 0, `tensor ${spec.name} does not fill whole bytes`);
  return bits / 8;
}

/**
 * Lays out a safetensors file. The given order is kept where every tensor then starts at a multiple
 * of its element size (so that a merge reads and writes forward); otherwise tensors are ordered by
 * element size, largest first, as the reference implementation does.
 *
 * Pure: same specs, same bytes.
 */
export function layoutFile(specs: readonly TensorSpec[]): FileLayout {
  const ordered = isAligned(specs) ? specs : sortByElementSize(specs);
  // Without a prototype, so that a tensor may have any name, `__proto__` too.
  const header: Record<string, unknown> = Object.create(null);
  header['__metadata__'] = METADATA;
  let end = 0;
  const ends = ordered.map((spec) => {
    const begin = end;
    end += byteLengthOf(spec);
    header[spec.name] = { dtype: spec.dtype, shape: spec.shape, data_offsets: [begin, end] };
    return end;
  });
  const headerBytes = encodeHeader(header);
  const tensors = ordered.map((spec, index) => {
    const begin = index === 0 ? 0 : (ends[index - 1] ?? 0);
    const { name, dtype, shape } = spec;
    const byteLength = (ends[index] ?? 0) - begin;
    return { name, dtype, shape, offset: headerBytes.length + begin, byteLength };
  });
  return { header: headerBytes, tensors, size: headerBytes.length + end };
}

function isAligned(specs: readonly TensorSpec[]): boolean {
  let offset = 0;
  for (const spec of specs) {
    if ((offset * 8) % bitsOf(spec.dtype) !== 0) return false;
    offset += byteLengthOf(spec);
  }
  return true;
}

function sortByElementSize(specs: readonly TensorSpec[]): TensorSpec[] {
  return [...specs].sort((a, b) => bitsOf(b.dtype) - bitsOf(a.dtype));
}

function encodeHeader(header: Record<string, unknown>): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / HEADER_ALIGNMENT_BYTES) * HEADER_ALIGNMENT_BYTES;
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return bytes;
}
