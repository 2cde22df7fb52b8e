/** Integers of compressed-tensors, against what it makes of them itself. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { dequantizeRows, unpackZeros } from '../../engine/quantization/integer-rows.ts';
import { decodeTensor, type FloatDtypeName } from '../doubles/decode-tensor.ts';
import { encodeBfloat16 } from '../doubles/integer-checkpoint.ts';
import { type LoadedTensor, loadTensors } from './golden-case.ts';

const CASES = fileURLToPath(new URL('./integers', import.meta.url));

const names = (await readdir(CASES)).filter((name) => name.endsWith('.safetensors'));

async function load(name: string) {
  const bytes = await readFile(join(CASES, name));
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const { bits, group_size } = header['__metadata__'];
  const tensors = await loadTensors(CASES, [name]);
  const get = (part: string): LoadedTensor => tensors.get(part)!;
  return { bits: Number(bits) as 4 | 8, groupSize: Number(group_size), tensors, get };
}

const toWords = ({ bytes }: LoadedTensor) => new Uint32Array(bytes.slice().buffer);
const toValues = ({ bytes, dtype }: LoadedTensor) => decodeTensor(bytes, dtype as FloatDtypeName);

/** To the dtype of the scale, which compressed-tensors computes in. */
function round(values: Float64Array, dtype: string): number[] {
  if (dtype === 'F32') return Array.from(Float32Array.from(values));
  if (dtype === 'BF16') return Array.from(decodeTensor(encodeBfloat16(values), 'BF16'));
  return Array.from(new Float16Array(values));
}

test('there are cases', () => expect(names).toHaveLength(5));

test.each(names)('%s', async (name) => {
  const { bits, groupSize, tensors, get } = await load(name);
  const expected = get('dequantized');
  const [rows = 0, columns = 0] = expected.shape;
  const zeros = tensors.get('weight_zero_point');
  const scale = get('weight_scale');
  const values = dequantizeRows({
    ...{ bits, columns, groupSize, packed: toWords(get('weight_packed')) },
    scales: toValues(scale),
    zeros:
      zeros === undefined
        ? undefined
        : unpackZeros(toWords(zeros), rows, columns / groupSize, bits),
  });
  expect(round(values, scale.dtype)).toEqual(Array.from(toValues(expected)));
  expect(new Set(values).size).toBeGreaterThan(100);
});
