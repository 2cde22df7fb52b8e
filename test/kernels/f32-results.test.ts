import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeElements } from '../../kernels/index.ts';
import {
  distanceFrom,
  mergeElement,
  toMultiple,
  toNearestFloat32,
} from '../doubles/exact-arithmetic.ts';
import type { MergeCase } from './kernel-pair.ts';
import { DTYPES, runMerge } from './kernel-pair.ts';
import { fillTensor, mergeCases } from './tensor-arbitrary.ts';

/** Rounding of one float64 operation, relative to its result. */
const F64_UNIT = 2 ** -53;

interface Element {
  readonly result: number;
  readonly weight: number;
  readonly left: readonly number[];
  readonly right: readonly number[];
}

/** The elements of a merge to f32 whose inputs are finite. */
function* elementsOf(test: MergeCase): Generator<Element> {
  const { rows, cols, rank, factorDtype, layout } = test;
  const results = decodeElements(runMerge('wasm', { ...test, dtypeOut: 'f32' }).bytes, 'f32');
  const weights = decodeElements(test.weights, test.dtypeIn);
  const lefts = decodeElements(test.left, factorDtype);
  const rights = decodeElements(test.right, factorDtype);
  const isLinear = layout === 'linear';
  for (let row = 0; row < rows; row++) {
    const left = Array.from({ length: rank }, (_, k) =>
      isLinear ? lefts[row * rank + k]! : lefts[k * rows + row]!,
    );
    for (let col = 0; col < cols; col++) {
      const right = Array.from({ length: rank }, (_, k) =>
        isLinear ? rights[k * cols + col]! : rights[col * rank + k]!,
      );
      const weight = weights[row * cols + col]!;
      if (![weight, ...left, ...right].every(Number.isFinite)) continue;
      yield { result: results[row * cols + col]!, weight, left, right };
    }
  }
}

function exactOf({ weight, left, right }: Element, scale: number): ReturnType<typeof mergeElement> {
  return mergeElement(toMultiple(weight), left.map(toMultiple), right.map(toMultiple), scale);
}

describe('an f32 result', () => {
  it.each(DTYPES)('from %s is the nearest f32 to the exact value', (dtypeIn) => {
    const shape = { rows: 21, cols: 45, rank: 16, scale: 0.1 };
    const test: MergeCase = {
      ...shape,
      dtypeIn,
      dtypeOut: 'f32',
      factorDtype: 'f32',
      layout: 'linear',
      weights: fillTensor(shape.rows * shape.cols, dtypeIn, 'plain', 1),
      left: fillTensor(shape.rows * shape.rank, 'f32', 'plain', 2),
      right: fillTensor(shape.rank * shape.cols, 'f32', 'plain', 3),
    };
    const elements = [...elementsOf(test)];
    expect(elements).toHaveLength(shape.rows * shape.cols);
    const nearest = elements.map((element) => toNearestFloat32(exactOf(element, shape.scale)));
    expect(elements.map(({ result }) => result)).toEqual(nearest);
  });

  it('is no further from the exact value than float64 sums allow, whatever the numbers', () => {
    const property = fc.property(mergeCases, (test) => {
      const { rank, scale } = test;
      for (const element of elementsOf(test)) {
        const exact = exactOf(element, scale);
        const nearest = toNearestFloat32(exact);
        // A zero of the kernel has a sign.
        if (element.result === nearest) continue;
        const terms = element.left.map((value, k) => Math.abs(value * element.right[k]!));
        const magnitude = Math.abs(scale) * terms.reduce((sum, term) => sum + term, 0);
        const bound = F64_UNIT * ((rank + 1) * magnitude + Math.abs(nearest));
        const excess =
          Math.abs(distanceFrom(exact, element.result)) - Math.abs(distanceFrom(exact, nearest));
        expect(excess).toBeLessThanOrEqual(2 * bound);
      }
    });
    fc.assert(property, { numRuns: 150 });
  });
});
