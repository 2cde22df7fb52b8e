import { decodeElements, storeElement } from '../../kernels/index.ts';
import type {
  BlockQuantization,
  RowQuantization,
  TensorReference,
  TensorSource,
} from '../plan/plan.ts';
import { CODE_TABLES, INT8_FACTOR } from '../quantization/code-tables.ts';
import { bytesOf, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import type { ReadTensor } from './factor-rows.ts';
import { recomputedRow } from './recomputed-row.ts';

const { fround } = Math;

/**
 * What a row of a quantised weight dequantises to, element by element: by another road than the
 * merge, which goes by blocks.
 *
 * @param columns of the weight; its rows follow one another in the flattened weight
 */
export async function dequantizedRow(
  from: TensorSource & { readonly quantization: NonNullable<TensorSource['quantization']> },
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const { quantization } = from;
  const begin = row * columns;
  const values = new Float64Array(columns);
  if (!isBitsandbytes(quantization)) return recomputedRow(from, quantization, row, columns, read);
  if (quantization.scheme === 'int8') {
    const bytes = await read(from, begin, columns);
    const [scale = 0] = await readFloats(quantization.scales, row, 1, read);
    return values.map((_, i) => fround(fround(((bytes[i]! << 24) >> 24) * scale) * INT8_FACTOR));
  }
  const firstByte = Math.floor(begin / 2);
  const packed = await read(from, firstByte, Math.ceil((begin + columns) / 2) - firstByte);
  const maxima = await maximaOf(quantization, begin, columns, read);
  const stored = new DataView(new ArrayBuffer(columns * bytesOf(quantization.dtype)));
  const dtype = KERNEL_DTYPE[quantization.dtype];
  for (let i = 0; i < columns; i++) {
    const pair = packed[Math.floor((begin + i) / 2) - firstByte]!;
    const code = (begin + i) % 2 === 0 ? pair >> 4 : pair & 15;
    const value = fround(CODE_TABLES[quantization.scheme][code]! * maxima[i]!);
    storeElement(stored, i * bytesOf(quantization.dtype), dtype, value);
  }
  return decodeElements(new Uint8Array(stored.buffer), dtype);
}

function isBitsandbytes(
  quantization: NonNullable<TensorSource['quantization']>,
): quantization is BlockQuantization | RowQuantization {
  return ['nf4', 'fp4', 'int8'].includes(quantization.scheme);
}

/** The absolute maximum that each of some elements is multiplied by. */
async function maximaOf(
  { blockSize, absmax, nested }: BlockQuantization,
  begin: number,
  count: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const first = Math.floor(begin / blockSize);
  const blocks = Math.floor((begin + count - 1) / blockSize) - first + 1;
  let maxima: Float64Array;
  if (nested === undefined) {
    maxima = await readFloats(absmax, first, blocks, read);
  } else {
    const codes = await read(absmax, first, blocks);
    const outer = await readFloats(nested.absmax, 0, nested.absmax.byteLength / 4, read);
    const map = await readFloats(nested.map, 0, 256, read);
    maxima = Float64Array.from(codes, (code, i) => {
      const product = fround(map[code]! * outer[Math.floor((first + i) / nested.blockSize)]!);
      return fround(product + fround(nested.offset));
    });
  }
  return Float64Array.from(
    { length: count },
    (_, i) => maxima[Math.floor((begin + i) / blockSize) - first]!,
  );
}

async function readFloats(
  tensor: TensorReference,
  begin: number,
  count: number,
  read: ReadTensor,
): Promise<Float64Array> {
  return decodeElements(await read(tensor, begin * 4, count * 4), 'f32');
}
