/** Weights as bitsandbytes stores them, made and read apart from the engine. */
import type { Random } from './random.ts';
import { alter, type TinyModel } from './tiny-model.ts';
import type { TestTensor } from './write-safetensors.ts';

export interface QuantizedSpec {
  readonly scheme: 'nf4' | 'fp4';
  readonly blockSize: number;
  readonly dtype: 'bfloat16' | 'float16' | 'float32';
  readonly shape: readonly number[];
  /** Whether the maxima of the blocks are quantised, in blocks of this size. */
  readonly nestedBlockSize?: number;
}

const TABLES = {
  nf4: [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1,
  ],
  fp4: [0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3].map((value) =>
    Math.fround(value / 12),
  ),
} as const;

const NESTED_OFFSET = 0.0625;

function float32(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}

/** A weight of random codes and maxima, and its companions. */
export function quantizedTensors(name: string, spec: QuantizedSpec, random: Random): TestTensor[] {
  const { scheme, blockSize, dtype, shape, nestedBlockSize } = spec;
  const count = shape.reduce((product, extent) => product * extent, 1);
  const blocks = Math.ceil(count / blockSize);
  const bytes = (length: number): Uint8Array =>
    Uint8Array.from({ length }, () => random.below(256));
  const floats = (length: number): Uint8Array => random.floats('F32', length).map(positive);
  const companion = (suffix: string, type: string, extent: number, data: Uint8Array) => ({
    ...{ name: `${name}.${suffix}`, dtype: type, shape: [extent], data },
  });
  const state = { quant_type: scheme, blocksize: blockSize, dtype, shape };
  const nested = { nested_dtype: 'float32', nested_offset: NESTED_OFFSET };
  const outer = Math.ceil(blocks / (nestedBlockSize ?? 1));
  const maxima =
    nestedBlockSize === undefined
      ? [companion('absmax', 'F32', blocks, floats(blocks))]
      : [
          companion('absmax', 'U8', blocks, bytes(blocks)),
          companion('nested_absmax', 'F32', outer, floats(outer)),
          companion('nested_quant_map', 'F32', 256, random.floats('F32', 256)),
        ];
  const json = JSON.stringify(
    nestedBlockSize === undefined
      ? state
      : { ...state, nested_blocksize: nestedBlockSize, ...nested },
  );
  const text = new TextEncoder().encode(json);
  const packed = Math.ceil(count / 2);
  return [
    { name, dtype: 'U8', shape: [packed, 1], data: bytes(packed) },
    ...maxima,
    companion('quant_map', 'F32', 16, float32(...TABLES[scheme])),
    companion(`quant_state.bitsandbytes__${scheme}`, 'U8', text.length, text),
  ];
}

/** Clears the sign bit, which is in the last byte of each float32. */
function positive(byte: number, index: number): number {
  return index % 4 === 3 ? byte & 0x7f : byte;
}

/** Random integers with the maxima of their rows. */
export function int8Tensors(
  module: string,
  [rows, columns]: readonly [number, number],
  random: Random,
): TestTensor[] {
  const data = Uint8Array.from({ length: rows * columns }, () => random.below(256));
  const scales = random.floats('F32', rows).map(positive);
  return [
    { name: `${module}.weight`, dtype: 'I8', shape: [rows, columns], data },
    { name: `${module}.SCB`, dtype: 'F32', shape: [rows], data: scales },
    { name: `${module}.weight_format`, dtype: 'U8', shape: [], data: Uint8Array.of(0) },
  ];
}

/** The float32 values of a weight before they are rounded to its dtype, one by one. */
export function dequantizeSlowly(tensors: readonly TestTensor[], spec: QuantizedSpec): number[] {
  const { fround } = Math;
  const [weight, ...others] = tensors;
  const find = (suffix: string): Uint8Array =>
    others.find(({ name }) => name === `${weight!.name}.${suffix}`)!.data;
  const floatAt = (bytes: Uint8Array, index: number): number =>
    new DataView(bytes.buffer, bytes.byteOffset).getFloat32(4 * index, true);
  const maximumOf = (block: number): number => {
    const { nestedBlockSize } = spec;
    if (nestedBlockSize === undefined) return floatAt(find('absmax'), block);
    const mapped = floatAt(find('nested_quant_map'), find('absmax')[block]!);
    const outer = floatAt(find('nested_absmax'), Math.floor(block / nestedBlockSize));
    return fround(fround(mapped * outer) + NESTED_OFFSET);
  };
  const count = spec.shape.reduce((product, extent) => product * extent, 1);
  return Array.from({ length: count }, (_, index) => {
    const pair = weight!.data[Math.floor(index / 2)]!;
    const code = index % 2 === 0 ? Math.floor(pair / 16) : pair % 16;
    const maximum = maximumOf(Math.floor(index / spec.blockSize));
    return fround(TABLES[spec.scheme][code]! * maximum);
  });
}

/** The codes of values, each that of the nearest value in the table, and the maxima of blocks. */
export function quantizeNearest(
  values: readonly number[],
  { scheme, blockSize }: Pick<QuantizedSpec, 'scheme' | 'blockSize'>,
): { readonly codes: number[]; readonly maxima: number[] } {
  const maxima: number[] = [];
  for (let begin = 0; begin < values.length; begin += blockSize) {
    maxima.push(Math.max(...values.slice(begin, begin + blockSize).map(Math.abs)));
  }
  const codes = values.map((value, index) => {
    const distances = TABLES[scheme].map((code) =>
      Math.abs(code * maxima[Math.floor(index / blockSize)]! - value),
    );
    return distances.indexOf(Math.min(...distances));
  });
  return { codes, maxima };
}

/** The matrices of a tiny base's layers, quantised as transformers would with bitsandbytes. */
export function quantizeBase(
  base: TinyModel,
  random: Random,
  kind: 'nf4' | 'nf4-double' | 'int8' = 'nf4',
): void {
  for (const { name, shape } of base.tensors.filter(({ name: each }) =>
    /_proj\.weight$/.test(each),
  )) {
    alter(base, name);
    const [rows = 0, columns = 0] = shape;
    const spec = { scheme: 'nf4', blockSize: 64, dtype: 'bfloat16', shape } as const;
    base.tensors.push(
      ...(kind === 'int8'
        ? int8Tensors(name.replace(/\.weight$/, ''), [rows, columns], random)
        : kind === 'nf4'
          ? quantizedTensors(name, spec, random)
          : quantizedTensors(name, { ...spec, nestedBlockSize: 256 }, random)),
    );
  }
  base.tensors.sort((a, b) => (a.dtype === b.dtype ? 0 : a.dtype === 'F32' ? -1 : 1));
  base.config['quantization_config'] = { quant_method: 'bitsandbytes', load_in_4bit: true };
}
