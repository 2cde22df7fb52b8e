import { WeldlineError } from '../errors.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { FoundPair } from './lora-pair.ts';

/**
 * LoRA on one parameter of a layer's experts (PEFT's `ParamWrapper`): the factors of all experts in
 * two tensors. Which parameter it is, is not in the names: the shapes tell.
 */
export interface ExpertPair {
  /** Path of the experts, for example `model.layers.0.mlp.experts`. */
  readonly module: string;
  /** Shape [experts · rank, in]: expert e has the rows from e · rank on. */
  readonly a: TensorEntry;
  /** Shape [out, rank · experts]: expert e has the columns e, e + experts, … */
  readonly b: TensorEntry;
}

/** A second parameter of the same experts is wrapped around the first. */
const EXPERTS = /\.experts(\.base_layer)?$/;

export function isOnExperts({ module, layer }: FoundPair): boolean {
  return layer === 'linear' && EXPERTS.test(module);
}

/**
 * @param where the adapter, for errors
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.unsupported-feature`
 */
export function toExpertPair(where: string, found: FoundPair): ExpertPair {
  const { module, lora_A: a, lora_B: b, lora_bias: bias, lora_magnitude: magnitude } = found;
  if (a === undefined || b === undefined) {
    throw new WeldlineError(
      'adapter.half-pair',
      `${where} has "${(a ?? b)?.name}" and no lora_${a === undefined ? 'A' : 'B'} beside it. The ` +
        'file is incomplete; save the adapter again.',
    );
  }
  if (bias !== undefined || magnitude !== undefined) {
    throw new WeldlineError(
      'adapter.unsupported-feature',
      `${where}: "${module}" has a bias or a magnitude beside LoRA on expert parameters, which PEFT ` +
        'does not have. It will not be merged in part; check what wrote the adapter.',
    );
  }
  if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[0] !== b.shape[1]) {
    throw new WeldlineError(
      'adapter.bad-shape',
      `${where}: "${module}" has A [${a.shape.join(', ')}], B [${b.shape.join(', ')}]; expected ` +
        'A [experts · r, in] and B [out, r · experts].',
    );
  }
  return { module: module.replace(/\.base_layer$/, ''), a, b };
}
