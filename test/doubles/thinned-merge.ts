/** Deltas thinned out and combined, in float64 and by sorting: apart from the engine's road. */
import { isChosen, randomKeyOf } from '../../engine/merge/bands/random-choice.ts';
import { decodeTensor } from './decode-tensor.ts';
import type { FloatName, TinyModel } from './tiny-model.ts';

/** 2 · B A of a tiny adapter (its scaling is 2), rounded to float32; undefined without a pair. */
export function denseDelta(adapter: TinyModel, name: string): Float64Array | undefined {
  const stem = `base_model.model.${name.replace('.weight', '')}`;
  const find = (factor: string) =>
    adapter.tensors.find((each) => each.name === `${stem}.${factor}.weight`);
  const [a, b] = [find('lora_A'), find('lora_B')];
  if (a === undefined || b === undefined) return undefined;
  const [rank = 0, columns = 0] = a.shape;
  const right = decodeTensor(a.data, a.dtype as FloatName);
  const left = decodeTensor(b.data, b.dtype as FloatName);
  return Float64Array.from({ length: (b.shape[0] ?? 0) * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    let sum = 0;
    for (let k = 0; k < rank; k++) {
      sum += (left[row * rank + k] ?? 0) * (right[k * columns + column] ?? 0);
    }
    return Math.fround(2 * sum);
  });
}

interface WeightedDelta {
  readonly id: string;
  readonly delta: Float64Array;
  readonly weight: number;
  readonly density: number;
}

interface Method {
  readonly method: string;
  readonly seed: number;
  readonly majoritySign: string;
  readonly name: string;
}

/** The base with all deltas, by the formulas of the papers. */
export function combineInFloat64(
  base: Float64Array,
  deltas: readonly WeightedDelta[],
  { method, seed, majoritySign, name }: Method,
): Float64Array {
  const thinned = deltas.map(({ id, delta, density }) =>
    method.startsWith('dare')
      ? atRandom(delta, density, randomKeyOf(seed, id, name))
      : ofLargest(delta, density),
  );
  return base.map((value, i) => {
    const column = thinned.map((delta) => delta[i] ?? Number.NaN);
    const weighted = column.map((each, index) => each * (deltas[index]?.weight ?? Number.NaN));
    if (!method.endsWith('ties')) return value + sum(weighted);
    const votes = majoritySign === 'total' ? column : column.map(Math.sign);
    const sign = sum(votes) >= 0 ? 1 : -1;
    const agreeing = weighted.filter((_, index) => Math.sign(column[index] ?? 0) === sign);
    return value + sum(agreeing) / Math.max(1, agreeing.length);
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function ofLargest(delta: Float64Array, density: number): Float64Array {
  const order = [...delta.keys()].sort(
    (a, b) => Math.abs(delta[b] ?? 0) - Math.abs(delta[a] ?? 0) || a - b,
  );
  const kept = new Set(order.slice(0, Math.floor(density * delta.length)));
  return delta.map((value, i) => (kept.has(i) ? value : 0));
}

function atRandom(delta: Float64Array, density: number, key: readonly [number, number]) {
  return delta.map((value, i) => (isChosen(i, key, density) ? value / density : 0));
}
