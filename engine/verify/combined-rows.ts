import { decodeElements } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import { matrixOf } from '../merge/tensor-work.ts';
import type { CombinedDeltas, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';
import { elementCombiner } from './combined-elements.ts';
import type { ReadTensor } from './factor-rows.ts';
import type { ExpectedTerm } from './sample-rows.ts';
import { truncatedRows } from './truncated-rows.ts';

/** Factors that are combined are rounded a few times before they are multiplied. */
const FACTOR_ROUNDINGS = 6;

/** A delta's factors: A [rank, inputs] and B [outputs, rank], row by row, exactly. */
export interface ExactFactors {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly rank: number;
  readonly scaling: number;
}

/** A row of what is added, and the sum of its terms' magnitudes. */
export type AddedRow = Pick<ExpectedTerm, 'product' | 'magnitude'>;

/**
 * Works out again what combined deltas add to rows, by another road than the merge.
 *
 * @returns undefined for a tensor without; else a function of a row of the tensor as stored
 * @throws WeldlineError `verify.recomputation-mismatch` if the factors are not what the method says
 */
export async function recomputeCombined(
  tensor: PlannedTensor,
  read: ReadTensor,
): Promise<((row: number) => ExpectedTerm) | undefined> {
  const { combined, deltas = [] } = tensor;
  const [first] = deltas;
  if (combined === undefined || first === undefined) return undefined;
  const bytes = new Map<TensorReference, Uint8Array>();
  for (const reference of deltas.flatMap(({ a, b }) => [a, b])) {
    if (reference === undefined) continue;
    bytes.set(reference, await read(reference, 0, reference.byteLength));
  }
  const valuesOf = (reference: TensorReference | undefined): Float64Array => {
    const stored = reference && bytes.get(reference);
    assert(reference && stored, `${tensor.name} has half a pair`);
    return decodeElements(stored, KERNEL_DTYPE[reference.dtype as MergeDtype]);
  };
  const factors = deltas.map(({ a, b, rank, scaling }) => {
    return { a: valuesOf(a), b: valuesOf(b), rank, scaling };
  });
  const added =
    combined.method === 'svd'
      ? truncatedRows(tensor, factors, (reference) => bytes.get(reference) as Uint8Array)
      : elementRows(tensor, combined, factors);
  const rank = combined.rank + FACTOR_ROUNDINGS;
  const delta = { adapter: first.adapter, module: first.module, rank, scaling: 1 };
  return (row) => ({ delta, left: new Float64Array(), ...added(row) });
}

/** Rows of the product of factors that PEFT combines element by element. */
function elementRows(
  tensor: PlannedTensor,
  combined: CombinedDeltas,
  factors: readonly ExactFactors[],
): (row: number) => AddedRow {
  const { columns } = matrixOf(tensor);
  const { rank } = combined;
  const isTransposed = tensor.deltas?.[0]?.transposed === true;
  const a = elementCombiner(combined, factors, 'a');
  const b = elementCombiner(combined, factors, 'b');
  const inputs = a.count / rank;
  return (row) => {
    const product = new Float64Array(columns);
    const magnitude = new Float64Array(columns);
    for (let k = 0; k < rank; k++) {
      const left = isTransposed ? a.at(k * inputs + row) : b.at(row * rank + k);
      for (let column = 0; column < columns; column++) {
        const right = isTransposed ? b.at(column * rank + k) : a.at(k * inputs + column);
        product[column]! += left.value * right.value;
        magnitude[column]! += left.magnitude * right.magnitude;
      }
    }
    return { product, magnitude };
  };
}
