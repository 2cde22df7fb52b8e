import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ELEMENT_BYTES } from '../../kernels/index.ts';
import { loadElement, storeElement } from '../../kernels/reference.ts';
import type { MergeCase } from './kernel-pair.ts';
import { bytesOf, DTYPE_PAIRS, DTYPES, FAST_KINDS, runMerge } from './kernel-pair.ts';
import { fillTensor, mergeCases } from './tensor-arbitrary.ts';

const { fround } = Math;

function plainCase(shape: Partial<MergeCase>): MergeCase {
  const base = {
    rows: 8,
    cols: 16,
    rank: 4,
    dtypeIn: 'bf16',
    dtypeOut: 'bf16',
    factorDtype: 'f32',
    layout: 'linear',
    ...shape,
  } as const;
  return {
    ...base,
    segments: shape.segments ?? [{ rank: base.rank, scale: 0.5 }],
    weights: shape.weights ?? fillTensor(base.rows * base.cols, base.dtypeIn, 'plain', 1),
    left: shape.left ?? fillTensor(base.rows * base.rank, base.factorDtype, 'plain', 2),
    right: shape.right ?? fillTensor(base.rank * base.cols, base.factorDtype, 'plain', 3),
  };
}

describe.each(FAST_KINDS)('the %s kernel against the scalar reference', (kind) => {
  it('gives the same bytes and the same count for any shape, type, layout and content', () => {
    fc.assert(
      fc.property(mergeCases, (test) => {
        expect(runMerge(kind, test)).toEqual(runMerge('scalar', test));
      }),
      { numRuns: 1500 },
    );
  });

  it('gives the same bytes at every rank from 1 to 70', () => {
    for (let rank = 1; rank <= 70; rank++) {
      const test = plainCase({ rows: 7, cols: 19, rank, factorDtype: 'bf16' });
      expect(runMerge(kind, test), `rank ${rank}`).toEqual(runMerge('scalar', test));
    }
  });

  it.each(DTYPE_PAIRS)(
    'gives the same bytes from $dtypeIn to $dtypeOut over column blocks',
    (pair) => {
      // Rank 1024 leaves eight panels to a column block: 75 columns make a second, ragged one.
      for (const [rank, cols] of [
        [1024, 75],
        [1024, 64],
        [1000, 131],
      ] as const) {
        const test = plainCase({ ...pair, rows: 9, cols, rank });
        expect(runMerge(kind, test)).toEqual(runMerge('scalar', test));
      }
    },
  );
});

describe('the scalar reference', () => {
  it.each(DTYPES)('follows the definition of %s results, written out by element', (dtypeOut) => {
    fc.assert(
      fc.property(mergeCases, (test) => {
        const { rows, cols } = test;
        const output = runMerge('scalar', { ...test, dtypeOut });
        const expected = new Uint8Array(output.bytes.length);
        const view = new DataView(expected.buffer);
        let nonFinite = 0;
        for (let i = 0; i < rows * cols; i++) {
          const value = mergeOne({ ...test, dtypeOut }, Math.floor(i / cols), i % cols);
          if (!storeElement(view, i * ELEMENT_BYTES[dtypeOut], dtypeOut, value)) nonFinite++;
        }
        expect(output).toEqual({ bytes: expected, nonFinite });
      }),
      { numRuns: 100 },
    );
  });
});

function mergeOne(test: MergeCase, row: number, col: number): number {
  const element = (bytes: Uint8Array, index: number, dtype: MergeCase['dtypeIn']): number =>
    loadElement(new DataView(bytes.buffer), index * ELEMENT_BYTES[dtype], dtype);
  const { rows, cols, rank, factorDtype, layout } = test;
  const round = test.dtypeOut === 'f32' ? (value: number): number => value : fround;
  let merged = element(test.weights, row * cols + col, test.dtypeIn);
  let k = 0;
  for (const segment of test.segments) {
    let sum = 0;
    for (const end = k + segment.rank; k < end; k++) {
      const leftIndex = layout === 'linear' ? row * rank + k : k * rows + row;
      const rightIndex = layout === 'linear' ? k * cols + col : col * rank + k;
      const left = element(test.left, leftIndex, factorDtype);
      const right = element(test.right, rightIndex, factorDtype);
      sum = round(sum + round(left * right));
    }
    merged = round(merged + round(sum * round(segment.scale)));
  }
  return fround(merged);
}

describe.each(FAST_KINDS)('bands, %s', (kind) => {
  it('never change a byte, wherever the rows are cut', () => {
    fc.assert(
      fc.property(mergeCases, fc.integer({ min: 1, max: 21 }), (test, bandRows) => {
        const whole = runMerge(kind, test);
        expect(runMerge(kind, test, Math.min(bandRows, test.rows))).toEqual(whole);
      }),
      { numRuns: 500 },
    );
  });
});

describe.each(FAST_KINDS)('numbers that are not finite, %s', (kind) => {
  it('pass through from the weights, and only their own elements are counted', () => {
    const weights = fillTensor(8 * 16, 'f16', 'plain', 4);
    const halves = new Uint16Array(weights.buffer);
    halves[3] = 0x7c00;
    halves[20] = 0xfc00;
    halves[127] = 0xfe01;
    const test = plainCase({ dtypeIn: 'f16', dtypeOut: 'f16', weights });
    const result = runMerge(kind, test);
    const output = new Uint16Array(result.bytes.buffer);
    expect(result.nonFinite).toBe(3);
    expect([output[3], output[20], output[127]]).toEqual([0x7c00, 0xfc00, 0x7e00]);
  });

  it('in a factor reach a whole row or column, and no padding lane is counted', () => {
    const left = fillTensor(5 * 3, 'f32', 'plain', 5);
    new Float32Array(left.buffer)[4 * 3] = Number.POSITIVE_INFINITY;
    const byRow = runMerge(kind, plainCase({ rows: 5, cols: 11, rank: 3, left }));
    expect(byRow.nonFinite).toBe(11);
    const right = fillTensor(3 * 11, 'f32', 'plain', 6);
    new Float32Array(right.buffer)[10] = Number.NaN;
    const byCol = runMerge(kind, plainCase({ rows: 5, cols: 11, rank: 3, right }));
    expect(byCol.nonFinite).toBe(5);
  });

  it('are counted after the rounding: finite in f32, infinite in f16', () => {
    const weights = bytesOf(new Float32Array(16).fill(65_519));
    const left = bytesOf(new Float32Array([0, 2]));
    const right = bytesOf(new Float32Array(8).fill(1));
    const shape = { rows: 2, cols: 8, rank: 1, dtypeIn: 'f32', weights, left, right };
    const half = runMerge(kind, plainCase({ ...shape, dtypeOut: 'f16' } as Partial<MergeCase>));
    const full = runMerge(kind, plainCase({ ...shape, dtypeOut: 'f32' } as Partial<MergeCase>));
    expect([half.nonFinite, full.nonFinite]).toEqual([8, 0]);
    const halves = new Uint16Array(half.bytes.buffer);
    expect([halves[0], halves[8]]).toEqual([0x7bff, 0x7c00]);
  });
});
