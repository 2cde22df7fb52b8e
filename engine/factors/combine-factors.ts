import { decodeElements } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { CombinedDeltas, PlannedDelta, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import { combineElements } from './combine-elements.ts';
import { type FactorPair, truncateSum } from './truncate-sum.ts';

/** Bytes of a whole tensor of an adapter. */
export type ReadWhole = (tensor: TensorReference) => Uint8Array;

const { fround } = Math;

/**
 * Works out the factors of several deltas combined. They depend on nothing but the factors that they
 * are made of, not on the machine.
 *
 * @returns A [rank, inputs] and B [outputs, rank], whose scaling is 1
 */
export function combineFactors(
  deltas: readonly PlannedDelta[],
  combined: CombinedDeltas,
  read: ReadWhole,
): FactorPair {
  if (combined.method === 'svd') return truncated(deltas, combined.rank, read);
  const roots = deltas.map(({ scaling }) => Math.sqrt(Math.abs(scaling)));
  const signed = roots.map((root, i) => fround(deltas[i]!.scaling >= 0 ? root : -root));
  const a = deltas.map((delta) => Float32Array.from(valuesOf(delta.a, read)));
  const combinedA = combineElements(a, signed, combined);
  const b = deltas.map((delta) => Float32Array.from(valuesOf(leftOf(delta), read)));
  return { a: combinedA, b: combineElements(b, roots.map(fround), combined) };
}

function truncated(deltas: readonly PlannedDelta[], rank: number, read: ReadWhole): FactorPair {
  const [total, inputs, outputs] = extentOf(deltas);
  const a = new Float64Array(total * inputs);
  const b = new Float64Array(total * outputs);
  let begin = 0;
  for (const delta of deltas) {
    const rows = valuesOf(delta.a, read);
    for (let i = 0; i < rows.length; i++) a[begin * inputs + i] = delta.scaling * rows[i]!;
    const values = valuesOf(leftOf(delta), read);
    for (let row = 0; row < outputs; row++) {
      for (let k = 0; k < delta.rank; k++) {
        b[(begin + k) * outputs + row] = values[row * delta.rank + k]!;
      }
    }
    begin += delta.rank;
  }
  return truncateSum(b, a, total, rank);
}

/** Total rank, inputs and outputs. */
function extentOf(deltas: readonly PlannedDelta[]): [number, number, number] {
  const total = deltas.reduce((sum, { rank }) => sum + rank, 0);
  const [first] = deltas;
  assert(first !== undefined, 'nothing is combined');
  return [total, first.a.shape[1] ?? 0, leftOf(first).shape[0] ?? 0];
}

/** B: a bias has none, and is not combined with anything. */
function leftOf({ b, module }: PlannedDelta): TensorReference {
  assert(b !== undefined, `${module} has no B`);
  return b;
}

function valuesOf(tensor: TensorReference, read: ReadWhole): Float64Array {
  assert(isMergeDtype(tensor.dtype), `a factor has dtype ${tensor.dtype}`);
  return decodeElements(read(tensor), KERNEL_DTYPE[tensor.dtype]);
}

/** The most memory that combining the deltas of a tensor takes at once, beside the thread itself. */
export function combinationBytes({ deltas = [], combined }: PlannedTensor): number {
  if (combined === undefined) return 0;
  const [total, inputs, outputs] = extentOf(deltas);
  const values = total * (inputs + outputs);
  const result = 4 * combined.rank * (inputs + outputs);
  const largest = Math.max(...deltas.map(({ a, b }) => Math.max(a.byteLength, b?.byteLength ?? 0)));
  // A factor as stored and in float64, and a vector or a sorted factor beside it.
  const reading =
    largest + (8 + 4) * Math.max(...deltas.map(({ rank }) => rank)) * Math.max(inputs, outputs);
  // All factors in float64 and the small matrices, or all in float32.
  const work = combined.method === 'svd' ? 8 * (values + 5 * total * total) : 4 * values;
  return work + reading + result;
}
