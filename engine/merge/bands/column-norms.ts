import type { PlannedShard, PlannedTensor } from '../../plan/plan.ts';
import { matrixOf } from '../tensor-work.ts';
import { bandSteps, needsColumnNorms } from './band-steps.ts';

/** The state of the work on norms is the first number; they follow it. */
const HEAD_BYTES = Float64Array.BYTES_PER_ELEMENT;

const ABSENT = 0;
const BEING_MADE = 1;
const MADE = 2;

/** Norms of the columns of `w + d` of each delta that needs them, shared by the threads of a merge. */
export type SharedNorms = ReadonlyMap<string, SharedArrayBuffer>;

function keyOf({ name }: PlannedTensor, step: number): string {
  return `${step} ${name}`;
}

function stepsOf(tensor: PlannedTensor): readonly number[] {
  const steps = [...(bandSteps(tensor) ?? []).entries()];
  return steps.filter(([, step]) => needsColumnNorms(step)).map(([index]) => index);
}

export function createNorms({ tensors }: PlannedShard): SharedNorms {
  return new Map(
    tensors.flatMap((tensor) =>
      stepsOf(tensor).map((step) => [
        keyOf(tensor, step),
        new SharedArrayBuffer(normsBytes(tensor)),
      ]),
    ),
  );
}

/** What the norms of all tensors of a shard take. */
export function sharedNormsBytes({ tensors }: PlannedShard): number {
  const each = tensors.map((tensor) => stepsOf(tensor).length * normsBytes(tensor));
  return each.reduce((sum, bytes) => sum + bytes, 0);
}

function normsBytes(tensor: PlannedTensor): number {
  return HEAD_BYTES + matrixOf(tensor).columns * Float64Array.BYTES_PER_ELEMENT;
}

/**
 * The norms of the columns for a step of a tensor. They need all of its rows, so the first thread that
 * comes to it works them out, and the others wait.
 *
 * @param make fills in the norms; if it fails, the next thread tries, and fails with its own error
 */
export function columnNorms(
  shared: SharedNorms,
  tensor: PlannedTensor,
  step: number,
  make: (norms: Float64Array) => void,
): Float64Array {
  const buffer = shared.get(keyOf(tensor, step));
  if (buffer === undefined) throw new RangeError(`${tensor.name} has no place for its norms`);
  const state = new Int32Array(buffer, 0, 1);
  const norms = new Float64Array(buffer, HEAD_BYTES);
  for (;;) {
    const found = Atomics.compareExchange(state, 0, ABSENT, BEING_MADE);
    if (found === MADE) return norms;
    if (found === BEING_MADE) {
      Atomics.wait(state, 0, BEING_MADE);
      continue;
    }
    let isMade = false;
    try {
      make(norms);
      isMade = true;
      return norms;
    } finally {
      Atomics.store(state, 0, isMade ? MADE : ABSENT);
      Atomics.notify(state, 0);
    }
  }
}
