import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { KernelKind, MergeSegment } from '../../kernels/index.ts';
import { decodeElements } from '../../kernels/index.ts';
import type { BinaryFraction } from '../doubles/exact-arithmetic.ts';
import {
  addProduct,
  distanceFrom,
  mergeElement,
  toMultiple,
  toNearestFloat32,
} from '../doubles/exact-arithmetic.ts';
import type { MergeCase } from './kernel-pair.ts';
import { DTYPES, FAST_KINDS, runMerge } from './kernel-pair.ts';
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
function* elementsOf(kind: KernelKind, test: MergeCase): Generator<Element> {
  const { rows, cols, rank, factorDtype, layout } = test;
  const results = decodeElements(runMerge(kind, { ...test, dtypeOut: 'f32' }).bytes, 'f32');
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

function exactOf(
  { weight, left, right }: Element,
  segments: readonly MergeSegment[],
): BinaryFraction {
  let sum = mergeElement(toMultiple(weight), [], [], 1);
  let begin = 0;
  for (const { rank, scale } of segments) {
    const end = begin + rank;
    const lefts = left.slice(begin, end).map(toMultiple);
    sum = addProduct(sum, lefts, right.slice(begin, end).map(toMultiple), scale);
    begin = end;
  }
  return sum;
}

/** The sum of |scale * left * right| over all k. */
function magnitudeOf({ left, right }: Element, segments: readonly MergeSegment[]): number {
  const scales = segments.flatMap(({ rank, scale }) => Array<number>(rank).fill(scale));
  return scales.reduce((sum, scale, k) => sum + Math.abs(scale * left[k]! * right[k]!), 0);
}

describe.each(FAST_KINDS)('an f32 result, %s', (kind) => {
  it.each(DTYPES)('from %s is the nearest f32 to the exact value', (dtypeIn) => {
    const shape = { rows: 21, cols: 45, rank: 16, segments: [{ rank: 16, scale: 0.1 }] };
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
    const elements = [...elementsOf(kind, test)];
    expect(elements).toHaveLength(shape.rows * shape.cols);
    const nearest = elements.map((element) => toNearestFloat32(exactOf(element, shape.segments)));
    expect(elements.map(({ result }) => result)).toEqual(nearest);
  });

  it('is no further from the exact value than float64 sums allow, whatever the numbers', () => {
    const property = fc.property(mergeCases, (test) => {
      const { rank, segments } = test;
      for (const element of elementsOf(kind, test)) {
        const exact = exactOf(element, segments);
        const nearest = toNearestFloat32(exact);
        // A zero of the kernel has a sign.
        if (element.result === nearest) continue;
        const magnitude = magnitudeOf(element, segments);
        const between = (segments.length - 1) * (Math.abs(element.weight) + magnitude);
        const bound = F64_UNIT * ((rank + 1) * magnitude + between + Math.abs(nearest));
        const excess =
          Math.abs(distanceFrom(exact, element.result)) - Math.abs(distanceFrom(exact, nearest));
        expect(excess).toBeLessThanOrEqual(2 * bound);
      }
    });
    fc.assert(property, { numRuns: 150 });
  });
});
