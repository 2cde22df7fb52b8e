import { decodeTensor, type FloatDtypeName } from './decode-tensor.ts';
import type { TinyModel } from './tiny-model.ts';
import { type TestTensor, writeSafetensors } from './write-safetensors.ts';

/** A checkpoint of integers as llm-compressor makes it, by arithmetic of its own. */

export interface IntegerScheme {
  readonly kind: 'awq' | 'gptq';
  readonly bits: 4 | 8;
  readonly groupSize: number;
  readonly symmetric: boolean;
  /** Names of modules that stay. */
  readonly ignore: readonly string[];
}

/** A step of AWQ, as tools/python/quantize.py records it. */
export interface ScaleStep {
  readonly from: string;
  readonly to: readonly string[];
  readonly scales: Float32Array;
}

/** Quantises all matrices of a model but its embedding, after AWQ's steps. Its tensors are BF16. */
export function quantizeModel(
  base: TinyModel,
  scheme: IntegerScheme,
  steps: readonly ScaleStep[] = [],
): TinyModel {
  const tensors = base.tensors.flatMap((tensor) => {
    const name = tensor.name.replace(/\.weight$/, '');
    const scaled = applySteps(tensor, name, steps);
    const stays = tensor.shape.length !== 2 || /embed_tokens$/.test(name);
    return stays || scheme.ignore.includes(name) ? [scaled] : quantizeTensor(scaled, name, scheme);
  });
  const weights = {
    ...{ num_bits: scheme.bits, type: 'int', strategy: 'group', group_size: scheme.groupSize },
    symmetric: scheme.symmetric,
  };
  const quantization_config = {
    ...{ quant_method: 'compressed-tensors', format: 'pack-quantized', ignore: scheme.ignore },
    config_groups: { group_0: { targets: ['Linear'], weights } },
  };
  return { ...base, tensors, config: { ...base.config, quantization_config } };
}

/** The record of AWQ's scales. */
export function scaleRecord(steps: readonly ScaleStep[]): Uint8Array {
  const tensors = steps.map(({ scales }, index) => ({
    ...{ name: `scales.${index}`, dtype: 'F32', shape: [scales.length] },
    data: new Uint8Array(scales.buffer),
  }));
  const sound = writeSafetensors(tensors);
  const length = Number(new DataView(sound.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(sound.subarray(8, 8 + length)));
  const plain = steps.map(({ from, to }) => ({ from, to, offset: 0 }));
  header['__metadata__'] = { steps: JSON.stringify(plain) };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(json.length), true);
  return Buffer.concat([prefix, json, sound.subarray(8 + length)]);
}

function applySteps(tensor: TestTensor, name: string, steps: readonly ScaleStep[]): TestTensor {
  const columns = tensor.shape.at(-1) ?? 1;
  const values = decodeTensor(tensor.data, tensor.dtype as FloatDtypeName);
  let isChanged = false;
  for (const { from, to, scales } of steps) {
    const isFrom = from === name;
    if (!isFrom && !to.includes(name)) continue;
    isChanged = true;
    for (const [i, value] of values.entries()) {
      const byRow = isFrom && tensor.shape.length === 2;
      const scale = scales[byRow ? Math.floor(i / columns) : i % columns]!;
      values[i] = nearestBfloat16(isFrom ? value / scale : value * scale);
    }
  }
  return isChanged ? { ...tensor, data: encodeBfloat16(values) } : tensor;
}

function quantizeTensor(tensor: TestTensor, name: string, scheme: IntegerScheme): TestTensor[] {
  const { bits, groupSize, symmetric } = scheme;
  const [rows = 0, columns = 0] = tensor.shape;
  const groups = columns / groupSize;
  const values = decodeTensor(tensor.data, tensor.dtype as FloatDtypeName);
  const [low, high] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  const scales = new Float64Array(rows * groups);
  const zeros = new Float64Array(rows * groups);
  const codes = new Float64Array(rows * columns);
  for (let place = 0; place < scales.length; place++) {
    const begin = place * groupSize;
    const group = values.subarray(begin, begin + groupSize);
    const [min, max] = [Math.min(0, ...group), Math.max(0, ...group)];
    const range = symmetric ? 2 * Math.max(-min, max) : max - min;
    const scale = nearestBfloat16(range / (high - low));
    scales[place] = scale;
    if (!symmetric) zeros[place] = clamp(Math.round(low - min / scale), low, high);
    for (const [i, value] of group.entries()) {
      codes[begin + i] = clamp(Math.round(value / scale) + zeros[place]!, low, high);
    }
  }
  // Of a matrix [groups, rows] a column is a group, so packing along rows is packing its transpose.
  const flipped = Float64Array.from({ length: zeros.length }, (_, i) => {
    return zeros[(i % rows) * groups + Math.floor(i / rows)]!;
  });
  const words = packRows(flipped, rows, bits);
  const perRow = words.length / groups;
  const zeroWords = words.map((_, i) => words[(i % groups) * perRow + Math.floor(i / groups)]!);
  const shape = new BigInt64Array([BigInt(rows), BigInt(columns)]);
  const packed = packRows(codes, columns, bits);
  const part = (ending: string, dtype: string, extents: number[], data: Uint8Array) => ({
    ...{ name: `${name}.weight_${ending}`, dtype, shape: extents, data },
  });
  return [
    part('packed', 'I32', [rows, packed.length / rows], new Uint8Array(packed.buffer)),
    part('scale', 'BF16', [rows, groups], encodeBfloat16(scales)),
    part('shape', 'I64', [2], new Uint8Array(shape.buffer)),
    ...(symmetric
      ? []
      : [part('zero_point', 'I32', [perRow, groups], new Uint8Array(zeroWords.buffer))]),
  ];
}

/** Signed codes along rows of `columns`, offset to be unsigned, from the lowest bits up. */
function packRows(codes: Float64Array, columns: number, bits: number): Uint32Array {
  const words = Math.ceil((columns * bits) / 32);
  const rows = codes.length / columns;
  const packed = new Uint32Array(rows * words);
  for (const [i, code] of codes.entries()) {
    const column = i % columns;
    const word = Math.floor(i / columns) * words + Math.floor((column * bits) / 32);
    packed[word]! |= (code + 2 ** (bits - 1)) << ((column * bits) % 32);
  }
  return packed;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

function nearestBfloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(bits.buffer)[0]!;
}

export function encodeBfloat16(values: ArrayLike<number>): Uint8Array {
  const rounded = Array.from(values, nearestBfloat16);
  const bits = new Uint32Array(Float32Array.from(rounded).buffer);
  return new Uint8Array(Uint16Array.from(bits, (each) => each >>> 16).buffer);
}
