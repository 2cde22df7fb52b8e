import type { Adapter } from '../adapters/adapter.ts';
import type { BoundChange } from '../adapters/kinds/bind-changes.ts';
import type { MatrixEntry } from '../adapters/kinds/module-change.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { PlannedChange, TensorReference } from './plan.ts';

/**
 * @param after how many deltas of the tensor come before it
 * @param weight of the adapter, which scales what is added
 */
export function planChange(
  { id: adapter, weightsFile }: Adapter,
  { change, transposed, isBias }: BoundChange,
  after: number,
  weight: number,
): PlannedChange {
  const { module, form } = change;
  const shared = { adapter, module, after };
  const refer = ({ offset, byteLength, dtype, shape }: TensorEntry): TensorReference => ({
    input: adapter,
    file: weightsFile,
    offset,
    byteLength,
    dtype,
    shape: [...shape],
  });
  const matrix = ({ a, b }: MatrixEntry) => ({ a: refer(a), ...(b && { b: refer(b) }) });
  const product = ({ a, b }: Required<MatrixEntry>) => ({ a: refer(a), b: refer(b) });
  switch (form.kind) {
    case 'hadamard': {
      const [first, second] = [product(form.first), product(form.second)];
      return { ...shared, kind: form.kind, first, second, scaling: weight * form.scaling };
    }
    case 'kronecker': {
      const [left, right] = [matrix(form.left), matrix(form.right)];
      return { ...shared, kind: form.kind, left, right, scaling: weight * form.scaling };
    }
    case 'scale': {
      const isByRow = !isBias && (form.by === 'outputs') !== transposed;
      const along = isByRow ? 'rows' : 'columns';
      return { ...shared, kind: form.kind, vector: refer(form.vector), along };
    }
    case 'rotation': {
      const { size, neumannTerms, radius } = form.rotation;
      return {
        ...shared,
        kind: form.kind,
        blocks: refer(form.blocks),
        size,
        ofOutputs: change.layer === 'embedding',
        ...(neumannTerms !== undefined && { neumannTerms }),
        ...(radius !== undefined && { radius }),
      };
    }
  }
}
