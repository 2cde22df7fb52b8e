import { assert } from '../errors.ts';
import { type BandStep, bandSteps } from '../merge/bands/band-steps.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import type { ColumnNorms } from './column-norms.ts';
import { type ReadTensor, readRows } from './factor-rows.ts';
import { kroneckerRow } from './kronecker-row.ts';
import { rotateRow } from './rotate-row.ts';
import type { ExpectedRow, ExpectedTerm, WorkedRow } from './sample-rows.ts';

/** Rounding of one float32 operation, and of one in float64, relative to its result. */
const F32_UNIT = 2 ** -24;
const F64_UNIT = 2 ** -53;

/** A row as the steps change it, and how far from it the merge's may be. */
interface Row {
  readonly index: number;
  readonly source: Float64Array;
  readonly x: Float64Array;
  readonly bound: Float64Array;
}

/**
 * A row of a tensor that is made by steps, in float64. The merge rounds rows of deltas, and the
 * finished row, to float32.
 */
export async function rowInSteps(
  tensor: PlannedTensor,
  { row: index, base: source, terms }: ExpectedRow,
  norms: ColumnNorms,
  read: ReadTensor,
): Promise<WorkedRow> {
  const row = { index, source, x: Float64Array.from(source), bound: source.map(() => 0) };
  const left = [...terms];
  for (const step of bandSteps(tensor) ?? []) await takeStep(step, row, left, norms, read);
  const { x, bound } = row;
  for (const [i, value] of x.entries()) bound[i]! += F32_UNIT * Math.abs(value) + 2 ** -149;
  return { exact: x, bound };
}

async function takeStep(
  step: BandStep,
  row: Row,
  terms: ExpectedTerm[],
  norms: ColumnNorms,
  read: ReadTensor,
): Promise<void> {
  const { index, x, bound } = row;
  switch (step.kind) {
    case 'add':
      addDelta(row, nextDelta(terms));
      return;
    case 'dora':
      await scaleToLength(step, row, nextDelta(terms), norms, read);
      return;
    case 'hadamard': {
      const [first, second] = [nextDelta(terms), nextDelta(terms)];
      const added = first.values.map((value, i) => step.scaling * value * second.values[i]!);
      const error = first.bound.map(
        (each, i) =>
          Math.abs(step.scaling) *
          (each * Math.abs(second.values[i]!) + second.bound[i]! * Math.abs(first.values[i]!)),
      );
      addDelta(row, { values: added, bound: error });
      return;
    }
    case 'kronecker': {
      const values = await kroneckerRow(step, index, read);
      // What cancels in the products of factors is of their size.
      const largest = values.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
      addDelta(row, { values, bound: values.map(() => 2 ** 16 * F64_UNIT * largest) });
      return;
    }
    case 'scale': {
      const isByRow = step.along === 'rows';
      const numbers = isByRow
        ? await readRows(step.vector, index, 1, 1, read)
        : await readRows(step.vector, 0, 1, x.length, read);
      scale(row, (i) => numbers[isByRow ? 0 : i]!, 0);
      return;
    }
    case 'rotation': {
      const rotated = await rotateRow(step, x, bound, read);
      x.set(rotated.exact);
      bound.set(rotated.bound);
      return;
    }
  }
}

/** A delta's row, and how far from it its rounding to float32 is. */
interface DeltaRow {
  readonly values: Float64Array;
  readonly bound: Float64Array;
}

function nextDelta(terms: ExpectedTerm[]): DeltaRow {
  const term = terms.shift();
  assert(term !== undefined, 'a step has no delta');
  const { scaling, rank } = term.delta;
  const values = term.product.map((value) => scaling * value);
  const bound = values.map((value, i) => {
    const products = Math.abs(scaling) * term.magnitude[i]! * (rank + 3);
    return F32_UNIT * Math.abs(value) + 2 * F64_UNIT * products + 2 ** -149;
  });
  return { values, bound };
}

function addDelta({ x, bound }: Row, delta: DeltaRow): void {
  for (let i = 0; i < x.length; i++) {
    x[i]! += delta.values[i]!;
    bound[i]! += delta.bound[i]! + F64_UNIT * Math.abs(x[i]!);
  }
}

async function scaleToLength(
  { delta }: Extract<BandStep, { kind: 'dora' }>,
  row: Row,
  added: DeltaRow,
  norms: ColumnNorms,
  read: ReadTensor,
): Promise<void> {
  assert(delta.magnitude !== undefined, `${delta.module} has no magnitude`);
  const sums = row.source.map((value, i) => value + added.values[i]!);
  addDelta(row, added);
  // A norm of values that are each rounded once is off by at most as much, relatively.
  const columns = norms.get(delta);
  if (columns !== undefined) {
    const lengths = await readRows(delta.magnitude, 0, 1, columns.length, read);
    scale(row, (i) => lengths[i]! / columns[i]!, F32_UNIT);
    return;
  }
  const [length = 0] = await readRows(delta.magnitude, row.index, 1, 1, read);
  const factor = length / Math.sqrt(sums.reduce((sum, value) => sum + value * value, 0));
  scale(row, () => factor, F32_UNIT);
}

/** @param error of the factors, relative to them */
function scale({ x, bound }: Row, factorOf: (i: number) => number, error: number): void {
  for (let i = 0; i < x.length; i++) {
    const factor = factorOf(i);
    x[i]! *= factor;
    bound[i] = Math.abs(factor) * bound[i]! + (2 * error + 4 * F64_UNIT) * Math.abs(x[i]!);
  }
}
