import { expect, test } from 'vitest';
import { type Factor, FactorMultiplier } from '../../../engine/insight/factor-products.ts';
import type { ReadTensor } from '../../../engine/verify/factor-rows.ts';
import { compileKernel } from '../../../kernels/index.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { Random } from '../../doubles/random.ts';

interface Stored {
  readonly factor: Factor;
  readonly bytes: Uint8Array;
  /** Element (k, position). */
  readonly at: (k: number, position: number) => number;
}

function store(dtype: 'BF16' | 'F32', rank: number, extent: number, isRankFirst: boolean): Stored {
  const bytes = new Random(rank).floats(dtype, rank * extent);
  const values = decodeTensor(bytes, dtype);
  const shape = isRankFirst ? [rank, extent] : [extent, rank];
  const file = `${dtype} ${shape}`;
  const tensor = { input: 'a', file, offset: 0, byteLength: bytes.length, dtype, shape };
  return {
    factor: { tensor, rank, extent, isRankFirst },
    bytes,
    at: (k, position) => values[isRankFirst ? k * extent + position : position * rank + k]!,
  };
}

test.each([
  ['a few', 7, true],
  ['one more than a product is long,', 1025, false],
  ['more than are staged at once, cut in pieces,', 70_001, true],
  ['more than are staged at once', 70_001, false],
])('products of factors over %s positions are those of float64', async (_, extent, isRankFirst) => {
  const stored = [
    store('F32', 61, extent, isRankFirst),
    store('BF16', 2, extent, isRankFirst),
    store('BF16', 5, extent, isRankFirst),
  ];
  const reads: number[] = [];
  const read: ReadTensor = async ({ file }, offset, length) => {
    reads.push(length);
    const { bytes } = stored.find(({ factor }) => factor.tensor.file === file)!;
    if (offset + length > bytes.length) throw new Error(`${file} is read past its end`);
    return bytes.subarray(offset, offset + length);
  };
  const multiplier = new FactorMultiplier(await compileKernel(), { one: 61, sum: 68 }, read);
  const positions = [0, 3, extent - 1];
  const factors = stored.map(({ factor }) => factor);
  const { gram, columns } = await multiplier.multiply(factors, positions);
  // 70,001 positions of ranks 61, 2 and 5 are 18 MB: no read is of more than the stage holds.
  expect(reads.reduce((sum, length) => sum + length, 0)).toBe(
    stored.reduce((sum, { bytes }) => sum + bytes.length, 0),
  );
  expect(Math.max(...reads)).toBeLessThanOrEqual(16 * 1024 * 1024);
  for (const [i, { factor, at }] of stored.entries()) {
    const expected = positions.flatMap((position) =>
      Array.from({ length: factor.rank }, (__, k) => at(k, position)),
    );
    expect([...columns[i]!]).toEqual(expected);
  }
  for (const [j, one] of stored.entries()) {
    for (const [i, other] of stored.slice(0, j + 1).entries()) {
      for (const [k, l] of [
        [0, 0],
        [other.factor.rank - 1, one.factor.rank - 1],
        [other.factor.rank - 1, 0],
      ] as const) {
        let [product, magnitude] = [0, 0];
        for (let position = 0; position < extent; position++) {
          const term = other.at(k, position) * one.at(l, position);
          product += term;
          magnitude += Math.abs(term);
        }
        const found = gram[j]![i]![k * one.factor.rank + l]!;
        expect(Math.abs(found - product)).toBeLessThanOrEqual(2 ** -24 * magnitude);
      }
    }
  }
});
