import { assert } from '../errors.ts';
import type { PlannedDelta, PlannedTensor } from '../plan/plan.ts';
import type { FactorMultiplier, FactorProducts } from './factor-products.ts';
import type { ComparedTensor } from './pair-sums.ts';
import { factorA, factorB, plainDeltas } from './plain-delta.ts';
import { spreadIndices } from './spread-tensors.ts';

/** Of a tensor as many columns of A and rows of B are sampled; signs are those where they cross. */
const SAMPLED = 32;

/**
 * Compares the plain deltas of a tensor with each other: of `s₁ B₁ A₁` and `s₂ B₂ A₂` the scalar
 * product is `s₁ s₂ Σ (B₁ᵀ B₂) ∘ (A₁ A₂ᵀ)`, without ever working a delta out.
 *
 * @param ids of all adapters, in their order
 */
export async function compareDeltas(
  tensor: PlannedTensor,
  ids: readonly string[],
  multiplier: FactorMultiplier,
): Promise<ComparedTensor> {
  const deltas = plainDeltas(tensor);
  const { a, b } = await multiplyFactors(tensor.name, deltas, multiplier);
  const places = deltas.map(({ adapter }) => ids.indexOf(adapter));
  assert(!places.includes(-1), `${tensor.name} has a delta of no adapter`);
  const products = new Float64Array(ids.length ** 2);
  const values = new Map<number, Float64Array>();
  for (const [j, delta] of deltas.entries()) {
    const one = places[j]!;
    const elements = elementsOf(delta, j, a, b);
    const earlier = values.get(one);
    values.set(one, earlier === undefined ? elements : elements.map((v, k) => v + earlier[k]!));
    for (let i = 0; i <= j; i++) {
      const other = places[i]!;
      const product = scalarProduct(a.gram[j]![i]!, b?.gram[j]?.[i]);
      const scaled = delta.scaling * deltas[i]!.scaling * product;
      // Two deltas of one adapter meet twice in its energy.
      const times = i !== j && one === other ? 2 : 1;
      products[Math.min(one, other) * ids.length + Math.max(one, other)]! += times * scaled;
    }
  }
  const present = [...values.keys()].sort((one, other) => one - other);
  return { present, products, ...compareSigns(present, values, ids.length) };
}

interface Multiplied {
  readonly a: FactorProducts;
  /** Absent for biases. */
  readonly b: FactorProducts | undefined;
}

async function multiplyFactors(
  name: string,
  deltas: readonly PlannedDelta[],
  multiplier: FactorMultiplier,
): Promise<Multiplied> {
  const factorsA = deltas.map(factorA);
  const factorsB = deltas.map(factorB).filter((factor) => factor !== undefined);
  const positionsOf = ([first]: typeof factorsA) =>
    spreadIndices(name, first?.extent ?? 0, SAMPLED);
  const a = await multiplier.multiply(factorsA, positionsOf(factorsA));
  if (factorsB.length === 0) return { a, b: undefined };
  assert(factorsB.length === deltas.length, `${name} has deltas with and without lora_B`);
  return { a, b: await multiplier.multiply(factorsB, positionsOf(factorsB)) };
}

/** A bias has no second factor: its gram is one element. */
function scalarProduct(a: Float64Array, b: Float64Array | undefined): number {
  return a.reduce((sum, value, k) => sum + value * (b?.[k] ?? 1), 0);
}

/** Elements of a delta where the sampled columns of A and rows of B cross. */
function elementsOf(
  { rank, scaling }: PlannedDelta,
  index: number,
  a: FactorProducts,
  b: FactorProducts | undefined,
): Float64Array {
  const ofA = a.columns[index]!;
  const ofB = b?.columns[index] ?? Float64Array.of(1);
  const countA = ofA.length / rank;
  return Float64Array.from({ length: (ofB.length / rank) * countA }, (_, at) => {
    const row = Math.floor(at / countA);
    const column = at % countA;
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += ofB[row * rank + k]! * ofA[column * rank + k]!;
    return scaling * sum;
  });
}

function compareSigns(
  present: readonly number[],
  values: ReadonlyMap<number, Float64Array>,
  count: number,
): Pick<ComparedTensor, 'elements' | 'opposed'> {
  const elements = new Float64Array(count ** 2);
  const opposed = new Float64Array(count ** 2);
  for (const i of present) {
    for (const j of present) {
      if (j <= i) continue;
      const other = values.get(j)!;
      for (const [k, value] of values.get(i)!.entries()) {
        if (value === 0 || other[k] === 0) continue;
        elements[i * count + j]!++;
        // Their product may be too small to have a sign.
        if (value > 0 !== other[k]! > 0) opposed[i * count + j]!++;
      }
    }
  }
  return { elements, opposed };
}
