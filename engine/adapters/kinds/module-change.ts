import type { TensorEntry } from '../../safetensors/header.ts';
import type { LayerKind } from '../adapter-key.ts';

/** A matrix in a file: a whole one, or the product of two. */
export interface MatrixEntry {
  readonly a: TensorEntry;
  /** The right factor, if `a` is a left one. */
  readonly b?: TensorEntry;
}

/** What an adapter beside LoRA does to the weight of a module. */
export type ChangeForm =
  /** Adds `scaling · (w1a w1b) ∘ (w2a w2b)` (LoHa). */
  | {
      readonly kind: 'hadamard';
      readonly first: Required<MatrixEntry>;
      readonly second: Required<MatrixEntry>;
      readonly scaling: number;
    }
  /** Adds `scaling · left ⊗ right` (LoKr). */
  | {
      readonly kind: 'kronecker';
      readonly left: MatrixEntry;
      readonly right: MatrixEntry;
      readonly scaling: number;
    }
  /** Multiplies what goes to each output, or comes from each input, by a number ((IA)³). */
  | { readonly kind: 'scale'; readonly vector: TensorEntry; readonly by: 'outputs' | 'inputs' }
  /** Rotates the inputs of a layer, or the outputs of an embedding, block by block (OFT). */
  | { readonly kind: 'rotation'; readonly blocks: TensorEntry; readonly rotation: Rotation };

/** How the rotations of OFT are made from the numbers in the file. */
export interface Rotation {
  /** Rows and columns of each block. */
  readonly size: number;
  /** Terms of the Neumann series in the place of the inverse; absent for the inverse itself. */
  readonly neumannTerms?: number;
  /** The largest Frobenius norm of a block's skew-symmetric matrix, if it is constrained. */
  readonly radius?: number;
}

/** What an adapter beside LoRA has for one module. */
export interface ModuleChange {
  /** Path without the `base_model.model.` prefix, as PEFT saw it. */
  readonly module: string;
  readonly layer: LayerKind;
  /** Of the module, where the adapter's shapes tell. */
  readonly inputs: number | undefined;
  readonly outputs: number | undefined;
  readonly form: ChangeForm;
  /** Tensors each of which makes the change nothing if it is all zeros. */
  readonly idleIfZero: readonly TensorEntry[];
}

/** All tensors of a change. */
export function tensorsOfChange({ form }: ModuleChange): readonly TensorEntry[] {
  switch (form.kind) {
    case 'hadamard':
      return [form.first.a, form.first.b, form.second.a, form.second.b];
    case 'kronecker':
      return [form.left, form.right].flatMap(({ a, b }) => (b === undefined ? [a] : [a, b]));
    case 'scale':
      return [form.vector];
    case 'rotation':
      return [form.blocks];
  }
}

/** Whether a change adds to a weight; others multiply what is there. */
export function isAdded({ kind }: Pick<ChangeForm, 'kind'>): boolean {
  return kind === 'hadamard' || kind === 'kronecker';
}
