import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseHeader, type TensorEntry } from '../../engine/safetensors/header.ts';
import { decodeTensor, type FloatDtypeName } from '../doubles/decode-tensor.ts';

/** What case.json says of one golden merge. */
export interface GoldenCase {
  readonly case: string;
  readonly base_dtype: string;
  readonly tie_word_embeddings: { readonly base: boolean; readonly expected: boolean };
  readonly targets: Readonly<
    Record<
      string,
      { readonly rank: number; readonly scaling: number; readonly transposed: boolean }
    >
  >;
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

/** What a merged weight is in exact arithmetic, and how far float32 arithmetic may be from it. */
export interface ExactMerge {
  readonly values: Float64Array;
  readonly bounds: Float64Array;
}

/** Rounding of one float32 operation, relative to its result. */
const F32_UNIT = 2 ** -24;

/**
 * `weight + scaling · B A` in float64, in the order of the stored weight. The bound is that of
 * `rank` products and sums, the scaling and the last sum, each rounded to float32 once.
 */
export function mergeExactly(
  weight: LoadedTensor,
  a: LoadedTensor,
  b: LoadedTensor,
  target: GoldenCase['targets'][string],
): ExactMerge {
  const values = decodeTensor(weight.bytes, weight.dtype as FloatDtypeName);
  const bounds = new Float64Array(values.length);
  const valuesA = decodeTensor(a.bytes, a.dtype as FloatDtypeName);
  const valuesB = decodeTensor(b.bytes, b.dtype as FloatDtypeName);
  const [rank = 0, inputs = 0] = a.shape;
  const outputs = b.shape[0] ?? 0;
  for (let out = 0; out < outputs; out++) {
    for (let column = 0; column < inputs; column++) {
      let sum = 0;
      let magnitude = 0;
      for (let k = 0; k < rank; k++) {
        const term = (valuesB[out * rank + k] ?? 0) * (valuesA[k * inputs + column] ?? 0);
        sum += term;
        magnitude += Math.abs(term);
      }
      const place = target.transposed ? column * outputs + out : out * inputs + column;
      const value = (values[place] ?? 0) + target.scaling * sum;
      values[place] = value;
      bounds[place] =
        F32_UNIT * (Math.abs(target.scaling) * magnitude * (rank + 3) + Math.abs(value));
    }
  }
  return { values, bounds };
}
