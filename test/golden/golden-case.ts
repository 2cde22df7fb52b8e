import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseHeader, type TensorEntry } from '../../engine/safetensors/header.ts';
import { decodeTensor, type FloatDtypeName } from '../doubles/decode-tensor.ts';
import { mergeElement, toMultiple, toNearestFloat32 } from '../doubles/exact-arithmetic.ts';
import { type MergedElement, mergeInFloat64 } from '../doubles/float-merge.ts';

/** What case.json says of one golden merge. */
export interface GoldenCase {
  readonly case: string;
  readonly base_dtype: 'bfloat16' | 'float16' | 'float32';
  /** Norm of each delta beside its weight's. */
  readonly delta_ratio: number;
  readonly tie_word_embeddings: { readonly base: boolean; readonly expected: boolean };
  readonly targets: Readonly<
    Record<
      string,
      { readonly rank: number; readonly scaling: number; readonly transposed: boolean }
    >
  >;
  /** Scaling of each bias that a lora_bias is added to. */
  readonly lora_biases?: Readonly<Record<string, number>>;
  /** Rows of the embeddings, if the adapter has others than the base. */
  readonly vocabulary?: number;
  readonly replaced: readonly string[];
  readonly added: readonly string[];
}

/** A tensor with its bytes. */
export interface LoadedTensor extends Pick<TensorEntry, 'name' | 'dtype' | 'shape'> {
  readonly bytes: Uint8Array;
}

/** The tensors of safetensors files in a directory, by name. */
export async function loadTensors(
  directory: string,
  files: readonly string[],
): Promise<Map<string, LoadedTensor>> {
  const tensors = new Map<string, LoadedTensor>();
  for (const file of files) {
    const bytes = await readFile(join(directory, file));
    const length = Number(bytes.readBigUInt64LE(0));
    const { tensors: entries } = parseHeader(bytes.subarray(8, 8 + length), bytes.length, file);
    for (const { name, dtype, shape, offset, byteLength } of entries) {
      const content = Uint8Array.from(bytes.subarray(offset, offset + byteLength));
      tensors.set(name, { name, dtype, shape, bytes: content });
    }
  }
  return tensors;
}

/** The bias of B as the two factors of a delta with one row. */
export function factorsOfBias(bias: LoadedTensor): [LoadedTensor, LoadedTensor] {
  const one = new Uint8Array(Float32Array.of(1).buffer);
  return [
    { ...bias, shape: [1, ...bias.shape] },
    { name: 'one', dtype: 'F32', shape: [1, 1], bytes: one },
  ];
}

/** The factors of a target, cut into the vectors whose products are its delta's elements. */
interface Factors {
  /** Row of B for each output. */
  readonly rows: readonly Float64Array[];
  /** Column of A for each input. */
  readonly columns: readonly Float64Array[];
  /** Place of an element in the stored weight. */
  readonly placeOf: (out: number, column: number) => number;
}

function factorsOf(
  a: LoadedTensor,
  b: LoadedTensor,
  target: GoldenCase['targets'][string],
): Factors {
  const valuesA = decodeTensor(a.bytes, a.dtype as FloatDtypeName);
  const valuesB = decodeTensor(b.bytes, b.dtype as FloatDtypeName);
  const [rank = 0, inputs = 0] = a.shape;
  const outputs = b.shape[0] ?? 0;
  const rows = Array.from({ length: outputs }, (_, out) =>
    valuesB.subarray(out * rank, (out + 1) * rank),
  );
  const columns = Array.from({ length: inputs }, (_, column) =>
    Float64Array.from({ length: rank }, (__, k) => valuesA[k * inputs + column] ?? 0),
  );
  const placeOf = (out: number, column: number): number =>
    target.transposed ? column * outputs + out : out * inputs + column;
  return { rows, columns, placeOf };
}

/** `weight + scaling · B A` in the order of the stored weight. */
export function mergeExactly(
  weight: LoadedTensor,
  a: LoadedTensor,
  b: LoadedTensor,
  target: GoldenCase['targets'][string],
): MergedElement[] {
  const weights = decodeTensor(weight.bytes, weight.dtype as FloatDtypeName);
  const { rows, columns, placeOf } = factorsOf(a, b, target);
  const merged = new Array<MergedElement>(weights.length);
  for (const [out, row] of rows.entries()) {
    for (const [column, right] of columns.entries()) {
      const place = placeOf(out, column);
      merged[place] = mergeInFloat64(weights[place] ?? 0, row, right, target.scaling);
    }
  }
  return merged;
}

/**
 * Scales each row of a merged weight to a length, as DoRA does. Two ways of float32 arithmetic add up
 * the squares of a row in different orders.
 */
export function scaleRows(
  merged: readonly MergedElement[],
  lengths: Float64Array,
): MergedElement[] {
  const columns = merged.length / lengths.length;
  const norms = Array.from(lengths, (_, row) =>
    Math.hypot(...merged.slice(row * columns, (row + 1) * columns).map(({ value }) => value)),
  );
  return merged.map(({ value, bound }, index) => {
    const row = Math.floor(index / columns);
    const factor = (lengths[row] ?? 0) / (norms[row] ?? 0);
    const rounding = 2 ** -24 * (columns + 4) * Math.abs(factor * value);
    return { value: factor * value, bound: Math.abs(factor) * bound + rounding };
  });
}

/** The float32 nearest to `weight + scaling · B A` in exact arithmetic, as stored bytes. */
export function mergeToNearestFloat32(
  weight: LoadedTensor,
  a: LoadedTensor,
  b: LoadedTensor,
  target: GoldenCase['targets'][string],
): Uint8Array {
  const weights = decodeTensor(weight.bytes, weight.dtype as FloatDtypeName);
  const { rows, columns, placeOf } = factorsOf(a, b, target);
  const rights = columns.map((column) => Array.from(column, toMultiple));
  const merged = new Float32Array(weights.length);
  for (const [out, row] of rows.entries()) {
    const left = Array.from(row, toMultiple);
    for (const [column, right] of rights.entries()) {
      const place = placeOf(out, column);
      const exact = mergeElement(toMultiple(weights[place] ?? 0), left, right, target.scaling);
      merged[place] = toNearestFloat32(exact);
    }
  }
  return new Uint8Array(merged.buffer);
}
