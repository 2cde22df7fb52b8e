import { WeldlineError } from '../errors.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { LoraConfig } from './adapter-config.ts';
import type { LayerKind } from './adapter-key.ts';
import type { ModuleScaling } from './scaling.ts';

/**
 * The two factors of one module's delta: `scaling · B A`, and its transpose for an embedding, whose
 * inputs are the vocabulary.
 */
export interface LoraPair {
  /** Path without the `base_model.model.` prefix, as PEFT saw it. */
  readonly module: string;
  readonly layer: LayerKind;
  /** Shape [rank, in]. */
  readonly a: TensorEntry;
  /** Shape [out, rank]. */
  readonly b: TensorEntry;
  /**
   * Set if `b` and `a` are the factors of the delta's transpose, as MLX stores them: then A is
   * [rank, out] and B is [in, rank].
   */
  readonly isOfTranspose?: true;
  /** Shape [out], added to the base's bias with the scaling. */
  readonly bias?: TensorEntry;
  /** Shape [out], the lengths that DoRA scales the rows of the merged weight to. */
  readonly magnitude?: TensorEntry;
  /** Shape [rank] or [rank, 1]: row k of A is multiplied by its number k (AdaLoRA, VeRA). */
  readonly rankScale?: TensorEntry;
  /**
   * Shape [out]: row i of B is multiplied by its number i (VeRA, whose A and B are shared, so that they
   * have more columns and rows than the module has inputs and outputs).
   */
  readonly outScale?: TensorEntry;
  readonly rank: number;
  readonly alpha: number;
  readonly scaling: number;
}

/** What a file has of a pair. */
export interface FoundPair {
  readonly module: string;
  readonly layer: LayerKind;
  readonly isOfTranspose?: true;
  lora_A?: TensorEntry;
  lora_B?: TensorEntry;
  lora_bias?: TensorEntry;
  lora_magnitude?: TensorEntry;
}

/**
 * Checks that the halves of a pair are there and fit.
 *
 * @param where the adapter, for errors
 * @param expected what the configuration says of the module
 * @param config whether each pair has a bias and a magnitude
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.rank-mismatch`
 */
export function toPair(
  where: string,
  found: FoundPair,
  expected: ModuleScaling,
  config: Pick<LoraConfig, 'loraBias' | 'useDora'>,
): LoraPair {
  const { module, layer, isOfTranspose } = found;
  const { lora_A: a, lora_B: b, lora_bias: bias, lora_magnitude: magnitude } = found;
  if (a === undefined || b === undefined) {
    throw new WeldlineError(
      'adapter.half-pair',
      `${where}: module "${module}" has lora_${a === undefined ? 'B' : 'A'} but no ` +
        `lora_${a === undefined ? 'A' : 'B'}. The file is incomplete; save the adapter again.`,
    );
  }
  const [rank, , ...restA] = a.shape;
  const [, rankOfB, ...restB] = b.shape;
  if (rank === undefined || a.shape.length !== 2 || b.shape.length !== 2 || rank !== rankOfB) {
    const shapes = `A [${a.shape.join(', ')}], B [${b.shape.join(', ')}]`;
    const convolution = restA.length > 0 || restB.length > 0;
    throw new WeldlineError(
      'adapter.bad-shape',
      `${where}: module "${module}" has ${shapes}; expected A [r, in] and B [out, r]` +
        `${convolution ? ' (convolutions are not supported)' : ' of one rank'}.`,
    );
  }
  if (expected.rank !== rank) {
    throw new WeldlineError(
      'adapter.rank-mismatch',
      `${where}: module "${module}" has tensors of rank ${rank}, but adapter_config.json gives it ` +
        `${expected.rank} (r and rank_pattern). The strength would be wrong; use the ` +
        'configuration that was saved with these weights.',
    );
  }
  const outputs = (isOfTranspose ? a.shape[1] : b.shape[0]) ?? 0;
  checkVector({ where, module, outputs }, 'lora_B.bias', bias, 'lora_bias', config.loraBias);
  checkVector(
    { where, module, outputs },
    'lora_magnitude_vector',
    magnitude,
    'use_dora',
    config.useDora,
  );
  const vectors = { ...(bias && { bias }), ...(magnitude && { magnitude }) };
  return { module, layer, a, b, ...(isOfTranspose && { isOfTranspose }), ...vectors, ...expected };
}

/** Checks that a vector of one value for each output is there exactly if the configuration says so. */
function checkVector(
  { where, module, outputs }: { where: string; module: string; outputs: number },
  name: string,
  vector: TensorEntry | undefined,
  key: string,
  isExpected: boolean,
): void {
  if ((vector !== undefined) !== isExpected) {
    throw new WeldlineError(
      'adapter.half-pair',
      `${where}: module "${module}" has ${vector === undefined ? 'no' : 'a'} ${name}, but ` +
        `adapter_config.json says ${key}: ${isExpected}. Use the configuration that was saved ` +
        'with these weights.',
    );
  }
  if (vector === undefined || vector.shape.join() === String(outputs)) return;
  throw new WeldlineError(
    'adapter.bad-shape',
    `${where}: module "${module}" has a ${name} [${vector.shape.join(', ')}]; expected ` +
      `[${outputs}], as B has rows.`,
  );
}
