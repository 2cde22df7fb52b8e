import { isVocabularyTensor } from '../architectures/tied-embeddings.ts';
import type { ByteSource } from '../byte-source.ts';
import { bytesOf, type MergeDtype } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { Adapter } from './adapter.ts';
import type { LoraPair } from './lora-pair.ts';

/** Two tensors of a file that hold the same values. */
export interface Twins {
  readonly one: TensorEntry;
  /** The same bytes, or those of the transpose where these are factors. */
  readonly other: TensorEntry;
}

/** Read at once. */
const BLOCK_BYTES = 1024 * 1024;

/**
 * Finds what an adapter has of both sides of embeddings that may be tied, with the same values: whole
 * tensors and rows byte for byte, and the factors of PEFT's `ensure_weight_tying`, where those of the head are
 * those of the embedding, transposed. Reads as far as they agree.
 */
export async function findTwins(
  {
    config,
    pairs,
    replacements,
    tokens,
  }: Pick<Adapter, 'config' | 'pairs' | 'replacements' | 'tokens'>,
  source: ByteSource,
): Promise<readonly Twins[]> {
  const found: Twins[] = [];
  const whole = [...replacements].filter(([name]) => isVocabularyTensor(name));
  for (const alike of [whole.map(([, entry]) => entry), [...tokens.values()]]) {
    for (const [place, one] of alike.entries()) {
      for (const other of alike.slice(place + 1)) {
        if (await isSame(one, other, source)) found.push({ one, other });
      }
    }
  }
  if (!config.ensureWeightTying) return found;
  const embeddings = pairs.filter(({ layer }) => layer === 'embedding');
  const heads = pairs.filter(
    ({ layer, module }) => layer === 'linear' && isVocabularyTensor(`${module}.weight`),
  );
  for (const { a, b } of embeddings) {
    for (const head of heads) {
      if (await isTranspose(a, head.b, source)) found.push({ one: a, other: head.b });
      if (await isTranspose(head.a, b, source)) found.push({ one: head.a, other: b });
    }
  }
  return found;
}

/** Whether two tensors are one, or have the same values. */
export function areTwins(
  { twins }: Pick<Adapter, 'twins'>,
  one: TensorEntry | undefined,
  other: TensorEntry | undefined,
): boolean {
  return (
    one === other ||
    twins.some((each) => [each.one, each.other].every((tensor) => [one, other].includes(tensor)))
  );
}

/** Whether a head's delta is that of an embedding. */
export function areTwinPairs(adapter: Adapter, embedding: LoraPair, head: LoraPair): boolean {
  const isPlain = ({ magnitude, bias }: LoraPair): boolean =>
    magnitude === undefined && bias === undefined;
  return (
    [embedding, head].every(isPlain) &&
    embedding.scaling === head.scaling &&
    areTwins(adapter, embedding.a, head.b) &&
    areTwins(adapter, embedding.b, head.a)
  );
}

/** Whether two tensors are alike and have the same bytes. */
export async function isSame(
  one: TensorEntry,
  other: TensorEntry,
  source: ByteSource,
): Promise<boolean> {
  if (one.dtype !== other.dtype || one.shape.join() !== other.shape.join()) return false;
  for (let at = 0; at < one.byteLength; at += BLOCK_BYTES) {
    const length = Math.min(BLOCK_BYTES, one.byteLength - at);
    const first = await source.read(one.offset + at, length);
    const second = await source.read(other.offset + at, length);
    if (Buffer.compare(first, second) !== 0) return false;
  }
  return true;
}

/** @param other the one with few columns: its rows are read in blocks, each beside pieces of `one` */
async function isTranspose(
  one: TensorEntry,
  other: TensorEntry,
  source: ByteSource,
): Promise<boolean> {
  const [rows = 0, columns = 0] = other.shape;
  if (one.dtype !== other.dtype || one.shape.join() !== [columns, rows].join()) return false;
  const size = bytesOf(one.dtype as MergeDtype);
  const count = Math.max(1, Math.floor(BLOCK_BYTES / (columns * size)));
  for (let begin = 0; begin < rows; begin += count) {
    const length = Math.min(count, rows - begin);
    const at = other.offset + begin * columns * size;
    const block = elementsOf(await source.read(at, length * columns * size), size);
    for (let column = 0; column < columns; column++) {
      const from = one.offset + (column * rows + begin) * size;
      const values = elementsOf(await source.read(from, length * size), size);
      for (let row = 0; row < length; row++) {
        if (values[row] !== block[row * columns + column]) return false;
      }
    }
  }
  return true;
}

/** The bits of each element, from bytes that begin anywhere. */
function elementsOf(bytes: Uint8Array, size: number): Uint16Array | Uint32Array {
  const { buffer } = Uint8Array.from(bytes);
  return size === 2 ? new Uint16Array(buffer) : new Uint32Array(buffer);
}
