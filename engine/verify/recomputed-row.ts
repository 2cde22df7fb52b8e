import { castElements, decodeElements } from '../../kernels/index.ts';
import type {
  BlockQuantization,
  Fp8Quantization,
  Mxfp4Quantization,
  PackedQuantization,
  RowQuantization,
  TensorReference,
  TensorSource,
} from '../plan/plan.ts';
import { CODE_TABLES } from '../quantization/code-tables.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';
import type { ReadTensor } from './factor-rows.ts';

/** What is read at a time to pick a few bytes of every row from. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Where AutoAWQ's `AWQ_ORDER` puts each of eight outputs. */
const AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7];

const NF4_BLOCK = 64;

const { fround } = Math;

type Quantization = Exclude<
  NonNullable<TensorSource['quantization']>,
  BlockQuantization | RowQuantization
>;

/**
 * What a row of a weight dequantises to, element by element from the formulas, without the tables
 * that the merge looks values up in.
 *
 * @param row of the weight as it is in the output, where its first dimensions are one
 */
export async function recomputedRow(
  from: TensorReference,
  quantization: Quantization,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const exact = await exactRow(from, quantization, row, columns, read);
  const floats = new Uint8Array(Float32Array.from(exact).buffer);
  const dtype = KERNEL_DTYPE[quantization.dtype];
  return decodeElements(castElements(floats, 'f32', dtype).bytes, dtype);
}

async function exactRow(
  from: TensorReference,
  quantization: Quantization,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  switch (quantization.scheme) {
    case 'gptq':
    case 'awq':
      return packedRow(from, quantization, row, columns, read);
    case 'fp8':
      return fp8Row(from, quantization, row, columns, read);
    case 'mxfp4':
      return mxfp4Row(from, quantization, row, columns, read);
    case 'simulated_nf4':
      return quantization.transposed
        ? simulatedTransposedRow(from, row, columns, read)
        : simulatedRow(from, row, columns, read);
  }
}

async function packedRow(
  from: TensorReference,
  { scheme, bits, zeroOffset, zeros, scales, groups, groupSize }: PackedQuantization,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const perWord = 32 / bits;
  const place = scheme === 'awq' ? AWQ_ORDER.indexOf(row % 8) : row % perWord;
  const ofOutput = { offset: 4 * Math.floor(row / perWord), bytes: 4 };
  const isAwq = scheme === 'awq';
  const words = toWords(await pick(from, isAwq ? ofOutput : { offset: 4 * row, bytes: 4 }, read));
  const zeroWords = toWords(await pick(zeros, ofOutput, read));
  const dtype = scales.dtype as MergeDtype;
  const size = bytesOf(dtype);
  const scaleBytes = await pick(scales, { offset: row * size, bytes: size }, read);
  const scale = decodeElements(scaleBytes, KERNEL_DTYPE[dtype]);
  const groupOf = groups && toWords(await read(groups, 0, groups.byteLength));
  const codeIn = (word: number, at: number): number =>
    Math.floor(word / 2 ** (bits * at)) % 2 ** bits;
  return Float64Array.from({ length: columns }, (_, input) => {
    const group = groupOf === undefined ? Math.floor(input / groupSize) : groupOf[input]!;
    const zero = codeIn(zeroWords[group]!, place) + zeroOffset;
    const code = isAwq
      ? codeIn(words[input]!, place)
      : codeIn(words[Math.floor(input / perWord)]!, input % perWord);
    return (code - zero) * scale[group]!;
  });
}

async function fp8Row(
  from: TensorReference,
  { scales, blockRows, blockColumns }: Fp8Quantization,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const codes = await read(from, row * columns, columns);
  const rows = from.shape.at(-2) ?? 1;
  const matrix = Math.floor(row / rows);
  const blocks = Math.ceil(columns / blockColumns);
  const scaleRow = matrix * Math.ceil(rows / blockRows) + Math.floor((row % rows) / blockRows);
  const dtype = scales.dtype as MergeDtype;
  const size = bytesOf(dtype);
  const scaleBytes = await read(scales, scaleRow * blocks * size, blocks * size);
  const scale = decodeElements(scaleBytes, KERNEL_DTYPE[dtype]);
  return Float64Array.from(codes, (code, column) => {
    // As a float16 it has the same bits with another exponent: 2^8 times smaller.
    const half = Uint8Array.of((code << 7) & 0xff, (code & 0x80) | ((code & 0x7f) >> 1));
    const value = (code & 0x7f) === 0x7f ? Number.NaN : decodeElements(half, 'f16')[0]! * 256;
    return value * scale[Math.floor(column / blockColumns)]!;
  });
}

async function mxfp4Row(
  from: TensorReference,
  { scales }: Mxfp4Quantization,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const [, , blocks = 0] = from.shape;
  const inputs = blocks * 32;
  const [expert, input] = [Math.floor(row / inputs), row % inputs];
  const ofExpert = (tensor: TensorReference, perOutput: number): TensorReference => ({
    ...tensor,
    offset: tensor.offset + expert * columns * perOutput,
    byteLength: columns * perOutput,
    shape: [columns, perOutput],
  });
  const codes = await pick(
    ofExpert(from, inputs / 2),
    { offset: Math.floor(input / 2), bytes: 1 },
    read,
  );
  const scale = await pick(
    ofExpert(scales, blocks),
    { offset: Math.floor(input / 32), bytes: 1 },
    read,
  );
  return Float64Array.from(codes, (pair, output) => {
    const code = input % 2 === 0 ? pair % 16 : Math.floor(pair / 16);
    const [exponent, mantissa] = [(code >> 1) & 3, code & 1];
    const size = exponent === 0 ? mantissa / 2 : (1 + mantissa / 2) * 2 ** (exponent - 1);
    return (
      (code < 8 ? size : -size) *
      (scale[output]! === 255 ? Number.NaN : 2 ** (scale[output]! - 127))
    );
  });
}

async function simulatedRow(
  from: TensorReference,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const dtype = from.dtype as MergeDtype;
  const size = bytesOf(dtype);
  const [begin, end] = [row * columns, (row + 1) * columns];
  const first = Math.floor(begin / NF4_BLOCK) * NF4_BLOCK;
  const last = Math.min(from.byteLength / size, Math.ceil(end / NF4_BLOCK) * NF4_BLOCK);
  const bytes = await read(from, first * size, (last - first) * size);
  const values = decodeElements(bytes, KERNEL_DTYPE[dtype]);
  const simulated = values.map((_, i) => {
    const block = i - (i % NF4_BLOCK);
    return simulatedValue(values.subarray(block, block + NF4_BLOCK), i - block);
  });
  return simulated.slice(begin - first, end - first);
}

/** A row [out] of a weight stored [in, out]: of each output 64 inputs are a block. */
async function simulatedTransposedRow(
  from: TensorReference,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const dtype = from.dtype as MergeDtype;
  const size = bytesOf(dtype);
  const first = Math.floor(row / NF4_BLOCK) * NF4_BLOCK;
  const bytes = await read(from, first * columns * size, NF4_BLOCK * columns * size);
  const values = decodeElements(bytes, KERNEL_DTYPE[dtype]);
  return Float64Array.from({ length: columns }, (_, column) => {
    const block = Float64Array.from(
      { length: NF4_BLOCK },
      (_v, i) => values[i * columns + column]!,
    );
    return simulatedValue(block, row - first);
  });
}

/** One value of a block, quantised and dequantised. */
function simulatedValue(block: Float64Array, index: number): number {
  const largest = Math.max(...block.map(Math.abs));
  const maximum = Math.max(largest, fround(1e-38));
  const scaled = fround(
    block.length === NF4_BLOCK ? block[index]! * fround(1 / maximum) : block[index]! / maximum,
  );
  const table = CODE_TABLES.nf4;
  const code = table.findLastIndex(
    (value, at) => at === 0 || scaled > fround(table[at - 1]! + value) / 2,
  );
  return table[code]! * largest;
}

/** Some bytes of every row of a matrix, one behind the other. */
async function pick(
  tensor: TensorReference,
  { offset, bytes }: { readonly offset: number; readonly bytes: number },
  read: ReadTensor,
): Promise<Uint8Array> {
  const rows = tensor.shape[0] ?? 1;
  const stride = tensor.byteLength / rows;
  const picked = new Uint8Array(rows * bytes);
  const step = Math.max(1, Math.floor(PIECE_BYTES / stride));
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const piece = await read(tensor, first * stride, count * stride);
    for (let i = 0; i < count; i++) {
      const at = i * stride + offset;
      picked.set(piece.subarray(at, at + bytes), (first + i) * bytes);
    }
  }
  return picked;
}

function toWords(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getUint32(4 * i, true));
}
