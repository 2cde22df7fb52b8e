import { z } from 'zod';
import { WeldlineError } from '../../errors.ts';
import type { TensorEntry } from '../../safetensors/header.ts';
import { unsupportedFeature } from '../config-keys.ts';
import type { LoraPair } from '../lora-pair.ts';
import { type FoundParts, type ModuleParts, requirePart, requireShape } from './find-parts.ts';
import type { ConfigFamily } from './kind-config.ts';

/** AdaLoRA: LoRA with trained singular values, of which training removed the least important. */
export interface AdaLoraKind {
  readonly type: 'ADALORA';
  /** The rank before anything was removed. */
  readonly initialRank: number;
  /** What is left of it, by module; the others have all of it. */
  readonly ranks: ReadonlyMap<string, number>;
}

/** PEFT adds it to the rank that it divides by. */
const RANK_EPSILON = 1e-5;

/** Keys of `AdaLoraConfig`. `r` and what PEFT reads of LoRA's strengths are without effect in it. */
export const ADALORA: ConfigFamily = {
  extendsLora: true,
  schema: z.looseObject({
    init_r: z.number().int().positive().default(12),
    lora_alpha: z.number().default(8),
    rank_pattern: z.record(z.string(), z.array(z.boolean())).nullish(),
    ...Object.fromEntries(
      [
        ...['r', 'target_r', 'tinit', 'tfinal', 'deltaT', 'beta1', 'beta2', 'orth_reg_weight'],
        ...['total_step', 'alpha_pattern', 'use_rslora'],
      ].map((key) => [key, z.unknown().optional()]),
    ),
  }),
  translate(config) {
    const initialRank = config['init_r'] as number;
    const alpha = config['lora_alpha'] as number;
    const pattern = (config['rank_pattern'] ?? {}) as Readonly<Record<string, boolean[]>>;
    const ranks = Object.entries(pattern).map(([name, kept]): [string, number] => [
      // The name of a module's singular values, live or as saved.
      name.replace(/\.lora_E(\.[^.]+)?$/, ''),
      kept.filter((isKept) => isKept).length,
    ]);
    return {
      lora: { r: initialRank, lora_alpha: alpha > 0 ? alpha : initialRank },
      kind: { type: 'ADALORA', initialRank, ranks: new Map(ranks) },
    };
  },
};

/**
 * AdaLoRA's pairs: `alpha / (init_r + 1e-5) · B (E ∘ A)` (PEFT's `SVDLinear.get_delta_weight`; the rank
 * stays that before the training). A module whose rank became 0 has none.
 *
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.rank-mismatch`
 */
export function adaLoraPairs(
  { initialRank, ranks }: AdaLoraKind,
  alpha: number,
  found: FoundParts,
  where: string,
): LoraPair[] {
  const scaling = alpha / (initialRank + RANK_EPSILON);
  return found.modules.flatMap((each) => {
    const { module, layer } = each;
    const [a, b, e] = ['lora_A', 'lora_B', 'lora_E'].map((part) => requirePart(each, part, where));
    const rank = ranks.get(module) ?? initialRank;
    requireShape(each, 'lora_A', a!, [undefined, undefined], where);
    if (a!.shape[0] !== rank) throw rankMismatch(each, a!, rank, where);
    requireShape(each, 'lora_B', b!, [undefined, rank], where);
    requireShape(each, 'lora_E', e!, [rank, 1], where);
    if (rank === 0) return [];
    return [{ module, layer, a: a!, b: b!, rankScale: e!, rank, alpha, scaling }];
  });
}

function rankMismatch(
  { module }: ModuleParts,
  a: TensorEntry,
  rank: number,
  where: string,
): WeldlineError {
  return new WeldlineError(
    'adapter.rank-mismatch',
    `${where}: module "${module}" has tensors of rank ${a.shape[0]}, but adapter_config.json gives ` +
      `it ${rank} (init_r and rank_pattern). Use the configuration that was saved with these weights.`,
  );
}

const BIASES: ReadonlyMap<unknown, string> = new Map([['vera_only', 'lora_only']]);

/** Keys of `VeraConfig`. */
export const VERA: ConfigFamily = {
  schema: z.looseObject({
    r: z.number().int().positive().default(256),
    save_projection: z.boolean().default(true),
    fan_in_fan_out: z.boolean().nullish(),
    bias: z.string().nullish(),
    projection_prng_key: z.unknown().optional(),
    vera_dropout: z.unknown().optional(),
    d_initial: z.unknown().optional(),
    init_weights: z.unknown().optional(),
  }),
  translate(config, where) {
    if (config['save_projection'] !== true) {
      throw unsupportedFeature(
        where,
        'save_projection is false, so the projections of VeRA are not in the file but drawn again ' +
          'from a seed, by the random generator of one version of torch',
        'Load the adapter with PEFT, set save_projection to true and save it again.',
      );
    }
    const { r, fan_in_fan_out, bias } = config;
    return {
      lora: { r, lora_alpha: r, fan_in_fan_out, bias: BIASES.get(bias) ?? bias },
      kind: { type: 'VERA' },
    };
  },
};

/**
 * VeRA's pairs: `(lambda_b ∘ B) (lambda_d ∘ A)` with the first rows of the B and the first columns of
 * the A that all modules share (PEFT's `vera.Linear.get_delta_weight`).
 *
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`
 */
export function veraPairs(rank: number, found: FoundParts, where: string): LoraPair[] {
  const [a, b] = ['vera_A', 'vera_B'].map((part) => found.shared.get(part));
  if (a === undefined || b === undefined) {
    throw new WeldlineError(
      'adapter.half-pair',
      `${where} has no base_model.${a === undefined ? 'vera_A' : 'vera_B'}, but adapter_config.json ` +
        'says save_projection: true. The file is incomplete; save the adapter again.',
    );
  }
  const all = { module: '(all)' };
  requireShape(all, 'vera_A', a, [rank, undefined], where);
  requireShape(all, 'vera_B', b, [undefined, rank], where);
  return found.modules.map((each) => {
    const { module, layer } = each;
    const outScale = requirePart(each, 'vera_lambda_b', where);
    const rankScale = requirePart(each, 'vera_lambda_d', where);
    requireShape(each, 'vera_lambda_b', outScale, [undefined], where);
    requireShape(each, 'vera_lambda_d', rankScale, [rank], where);
    if ((outScale.shape[0] ?? 0) > (b.shape[0] ?? 0)) {
      requireShape(each, 'vera_lambda_b', outScale, [b.shape[0]], where);
    }
    return { module, layer, a, b, rankScale, outScale, rank, alpha: rank, scaling: 1 };
  });
}
