import type { FourBitEvidence } from '../adapters/four-bit-evidence.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { MergeOnto } from './merge-onto-choices.ts';
import type { TensorSource } from './plan.ts';

interface Base {
  /** Where the weights come from that are not taken as they are stored, by name. */
  readonly quantized: ReadonlyMap<string, TensorSource>;
  readonly config: ModelConfig;
}

/**
 * Which weights an adapter was trained on is not in its files, so a person must say it: of a
 * quantised base always, of a 16-bit one where something says that it was trained on 4 bits.
 *
 * @throws WeldlineError `checkpoint.quantized-base`, `adapter.quantized-training`,
 *   `plan.option-invalid`
 */
export function checkMergeOnto(
  { quantized, config }: Base,
  chosen: MergeOnto | undefined,
  evidence: FourBitEvidence | undefined,
): void {
  const isQuantized = config.quantization !== undefined && quantized.size > 0;
  if (isQuantized && chosen !== 'dequantized') throw quantizedBase(quantized.size);
  if (isQuantized) return;
  if (chosen === 'dequantized') {
    throw new WeldlineError(
      'plan.option-invalid',
      'merge_onto (--merge-onto) is dequantized, but the base is not quantised. Leave it out, name ' +
        'the quantised checkpoint as the base, or choose simulated_nf4.',
    );
  }
  if (chosen === undefined && evidence !== undefined) throw quantizedTraining(evidence);
}

function quantizedBase(count: number): WeldlineError {
  return new WeldlineError(
    'checkpoint.quantized-base',
    `The base is quantised (${count} weights). A QLoRA adapter was trained on what these ` +
      'dequantise to: to merge onto that, set base.merge_onto (--merge-onto) to dequantized. To ' +
      'merge onto the original weights, name their 16-bit repository as the base instead.',
  );
}

function quantizedTraining({ file, value }: FourBitEvidence): WeldlineError {
  return new WeldlineError(
    'adapter.quantized-training',
    `The adapter was trained on 4-bit weights (${file}: ${value}), and the base has 16 bits. Say ` +
      'what it is merged onto in base.merge_onto (--merge-onto): original, the base as it is; ' +
      'simulated_nf4, the base as QLoRA saw it; or dequantized, with the 4-bit checkpoint as the ' +
      'base. Which of them serves better differs from model to model: evaluate both.',
  );
}
