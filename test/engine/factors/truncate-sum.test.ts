import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { truncateSum } from '../../../engine/factors/truncate-sum.ts';
import { Random } from '../../doubles/random.ts';

/** A matrix, row by row. */
interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

function matrixOf(
  rows: number,
  columns: number,
  at: (row: number, column: number) => number,
): Matrix {
  const data = Float64Array.from({ length: rows * columns }, (_, i) =>
    at(Math.floor(i / columns), i % columns),
  );
  return { rows, columns, data };
}

function randomMatrix(rows: number, columns: number, random: Random): Matrix {
  return matrixOf(rows, columns, () => random.next() / 2 ** 31 - 1);
}

function times(left: Matrix, right: Matrix): Matrix {
  return matrixOf(left.rows, right.columns, (row, column) => {
    let sum = 0;
    for (let k = 0; k < left.columns; k++) {
      sum += left.data[row * left.columns + k]! * right.data[k * right.columns + column]!;
    }
    return sum;
  });
}

function transpose({ rows, columns, data }: Matrix): Matrix {
  return matrixOf(columns, rows, (row, column) => data[column * columns + row]!);
}

/** Columns of an orthogonal matrix: reflections (Householder) of those of the unit matrix. */
function orthonormalColumns(size: number, count: number, random: Random): Matrix {
  let result = matrixOf(size, count, (row, column) => (row === column ? 1 : 0));
  for (let step = 0; step < 3; step++) {
    const mirror = randomMatrix(size, 1, random);
    const square = mirror.data.reduce((sum, value) => sum + value * value, 0);
    const along = times(transpose(mirror), result);
    const { columns, data } = result;
    result = matrixOf(
      size,
      count,
      (row, column) =>
        data[row * columns + column]! - (2 / square) * mirror.data[row]! * along.data[column]!,
    );
  }
  return result;
}

/** U diag(values) Vᵀ, its first terms exactly, and factors of it that show nothing of U and V. */
function knownSum(outputs: number, inputs: number, values: readonly number[], seed: number) {
  const random = new Random(seed);
  const count = values.length;
  const u = orthonormalColumns(outputs, count, random);
  const v = orthonormalColumns(inputs, count, random);
  const scaled = matrixOf(outputs, count, (row, k) => u.data[row * count + k]! * values[k]!);
  const mixing = orthonormalColumns(count, count, random);
  const firstTerms = (rank: number): Matrix =>
    matrixOf(outputs, inputs, (row, column) => {
      let sum = 0;
      for (let k = 0; k < rank; k++) {
        sum += scaled.data[row * count + k]! * v.data[column * count + k]!;
      }
      return sum;
    });
  return { b: times(scaled, mixing), a: times(transpose(mixing), transpose(v)), firstTerms };
}

function truncate(b: Matrix, a: Matrix, rank: number): { b: Matrix; a: Matrix; product: Matrix } {
  const total = a.rows;
  const pair = truncateSum(transpose(b).data.slice(), a.data.slice(), total, rank);
  const left = { rows: b.rows, columns: rank, data: Float64Array.from(pair.b) };
  const right = { rows: rank, columns: a.columns, data: Float64Array.from(pair.a) };
  return { b: left, a: right, product: times(left, right) };
}

function distance(one: Matrix, other: Matrix): number {
  return Math.hypot(...one.data.map((value, i) => value - other.data[i]!));
}

describe('a truncated sum', () => {
  test.each([
    ['values of one size', 40, 30, [5, 4, 3, 2, 1], 3],
    ['values far apart', 30, 50, [1e3, 1, 1e-3, 1e-6, 1e-9], 4],
    ['more outputs than inputs', 200, 7, [3, 2, 1], 2],
    ['one that is left of one', 9, 5, [2, 1], 1],
    ['a rank that cuts nothing off', 20, 20, [3, 2, 1], 3],
  ])('%s: the first terms, to float32', (_what, outputs, inputs, values, rank) => {
    const { b, a, firstTerms } = knownSum(outputs, inputs, values, 5);
    const { product } = truncate(b, a, rank);
    // Of each factor, an element is rounded once.
    const rounding = 2 ** -23 * Math.hypot(...values);
    expect(distance(product, firstTerms(rank))).toBeLessThan(rounding);
  });

  test('U S and Vᵀ: the rows of A are orthonormal, the columns of B orthogonal and in order', () => {
    const values = [7, 5, 3, 2, 1];
    const { b, a } = knownSum(33, 21, values, 8);
    const found = truncate(b, a, 4);
    const right = times(found.a, transpose(found.a));
    const left = times(transpose(found.b), found.b);
    for (let i = 0; i < 4; i++) {
      for (let j = 0; j < 4; j++) {
        expect(right.data[4 * i + j]).toBeCloseTo(i === j ? 1 : 0, 6);
        expect(left.data[4 * i + j]).toBeCloseTo(i === j ? values[i]! ** 2 : 0, 5);
      }
    }
  });

  test('factors that depend on one another, are zero, or are more than the matrix has rows', () => {
    const random = new Random(4);
    const [b, a] = [randomMatrix(6, 3, random), randomMatrix(3, 5, random)];
    const whole = times(b, a);
    const beside = (left: Matrix, right: Matrix): Matrix =>
      matrixOf(left.rows, left.columns + right.columns, (row, column) =>
        column < left.columns
          ? left.data[row * left.columns + column]!
          : right.data[row * right.columns + column - left.columns]!,
      );
    const below = (top: Matrix, bottom: Matrix): Matrix =>
      transpose(beside(transpose(top), transpose(bottom)));
    const twice = truncate(beside(b, b), below(a, a), 3).product;
    const doubled = { ...whole, data: whole.data.map((value) => 2 * value) };
    expect(distance(twice, doubled)).toBeLessThan(1e-5);
    const negative = { ...b, data: b.data.map((value) => -value) };
    const nothing = truncate(beside(b, negative), below(a, a), 2).product;
    expect(Math.hypot(...nothing.data)).toBeLessThan(1e-14);
    const zero = matrixOf(6, 3, () => 0);
    const half = truncate(beside(b, zero), below(a, a), 3).product;
    expect(distance(half, whole)).toBeLessThan(1e-5);
    const nowhere = truncate(zero, a, 2);
    expect(nowhere.product.data.every((value) => value === 0)).toBe(true);
    const wide = randomMatrix(6, 20, random);
    const long = randomMatrix(20, 5, random);
    expect(distance(truncate(wide, long, 5).product, times(wide, long))).toBeLessThan(1e-5);
  });

  test('equal singular values: either choice is right, and the error is the smallest there is', () => {
    const { b, a, firstTerms } = knownSum(25, 35, [2, 1, 1, 1], 3);
    const { product } = truncate(b, a, 2);
    expect(distance(product, firstTerms(4))).toBeCloseTo(Math.SQRT2, 5);
  });

  test('nothing of that rank is nearer (Eckart and Young), and a lower rank is farther', () => {
    const sizes = fc.integer({ min: 2, max: 24 });
    const seeds = fc.integer({ min: 1, max: 1e6 });
    fc.assert(
      fc.property(sizes, sizes, fc.integer({ min: 2, max: 9 }), seeds, (m, n, total, seed) => {
        const random = new Random(seed);
        const [b, a] = [randomMatrix(m, total, random), randomMatrix(total, n, random)];
        const whole = times(b, a);
        const length = Math.hypot(...whole.data);
        let before = length;
        for (let rank = 1; rank <= Math.min(m, n, total); rank++) {
          const { product } = truncate(b, a, rank);
          const error = distance(product, whole);
          expect(error).toBeLessThanOrEqual(before + 1e-6 * length);
          const nearby = matrixOf(rank, n, (row, column) =>
            row === column ? 1 : (random.next() / 2 ** 32) * 0.1,
          );
          // The best B for some other A is no better: it projects the rows on another space.
          const other = orthonormalRows(nearby);
          const projected = times(times(whole, transpose(other)), other);
          expect(error).toBeLessThanOrEqual(distance(projected, whole) + 1e-6 * length);
          before = error;
        }
        expect(before).toBeLessThan(1e-6 * length);
      }),
      { numRuns: 40 },
    );
  });
});

function orthonormalRows({ rows, columns, data }: Matrix): Matrix {
  const done: Float64Array[] = [];
  for (let i = 0; i < rows; i++) {
    const row = data.slice(i * columns, (i + 1) * columns);
    for (const other of [...done, ...done]) {
      const share = row.reduce((sum, value, k) => sum + value * other[k]!, 0);
      for (let k = 0; k < columns; k++) row[k]! -= share * other[k]!;
    }
    const length = Math.hypot(...row);
    done.push(row.map((value) => value / length));
  }
  return matrixOf(rows, columns, (row, column) => done[row]![column]!);
}
