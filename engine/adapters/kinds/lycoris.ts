import { z } from 'zod';
import type { TensorEntry } from '../../safetensors/header.ts';
import { unsupportedFeature } from '../config-keys.ts';
import type { ModuleScaling } from '../scaling.ts';
import { type FoundParts, type ModuleParts, requirePart, requireShape } from './find-parts.ts';
import type { ConfigFamily } from './kind-config.ts';
import type { MatrixEntry, ModuleChange } from './module-change.ts';

const patterns = z.record(z.string(), z.number().positive()).nullish();

/** Keys of `LycorisConfig` and of both its kinds. */
const shared = {
  r: z.number().int().positive().default(8),
  alpha: z.number().default(8),
  rank_pattern: patterns,
  alpha_pattern: patterns,
  rank_dropout: z.unknown().optional(),
  module_dropout: z.unknown().optional(),
  use_effective_conv2d: z.unknown().optional(),
  init_weights: z.unknown().optional(),
};

function toLora(config: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { r, alpha, rank_pattern, alpha_pattern } = config;
  return { r, lora_alpha: alpha, rank_pattern, alpha_pattern };
}

/** Keys of `LoHaConfig`. */
export const LOHA: ConfigFamily = {
  schema: z.looseObject(shared),
  translate: (config) => ({ lora: toLora(config), kind: { type: 'LOHA' } }),
};

/** Keys of `LoKrConfig`. How a weight was cut into two shows in the shapes of the file. */
export const LOKR: ConfigFamily = {
  schema: z.looseObject({
    ...shared,
    decompose_both: z.unknown().optional(),
    decompose_factor: z.unknown().optional(),
    rank_dropout_scale: z.unknown().optional(),
  }),
  translate: (config) => ({ lora: toLora(config), kind: { type: 'LOKR' } }),
};

/**
 * LoHa's changes: `alpha / r · (w1_a w1_b) ∘ (w2_a w2_b)` (PEFT's `HadaWeight`).
 *
 * @param scalings of the modules, in the order of `found`
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.unsupported-feature`
 */
export function lohaChanges(
  found: FoundParts,
  scalings: readonly ModuleScaling[],
  where: string,
): ModuleChange[] {
  return found.modules.map((each, index) => {
    refuseTucker(each, ['hada_t1', 'hada_t2'], where);
    const { rank, scaling } = scalings[index]!;
    const first = factors(each, 'hada_w1', rank, where);
    const second = factors(each, 'hada_w2', rank, where);
    const [outputs, inputs] = [first.a.shape[0], first.b.shape[1]];
    requireShape(each, 'hada_w2_a', second.a, [outputs, rank], where);
    requireShape(each, 'hada_w2_b', second.b, [rank, inputs], where);
    return {
      module: each.module,
      layer: each.layer,
      inputs,
      outputs,
      form: { kind: 'hadamard', first, second, scaling },
      idleIfZero: [first.a, first.b, second.a, second.b],
    };
  });
}

/**
 * LoKr's changes: `alpha / r · w1 ⊗ w2`, where w1 and w2 are whole or products w_a w_b (PEFT's
 * `LoKrLayer.get_delta_weight`).
 *
 * @param scalings of the modules, in the order of `found`
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.unsupported-feature`
 */
export function lokrChanges(
  found: FoundParts,
  scalings: readonly ModuleScaling[],
  where: string,
): ModuleChange[] {
  return found.modules.map((each, index) => {
    refuseTucker(each, ['lokr_t2'], where);
    const { rank, scaling } = scalings[index]!;
    const [left, right] = ['lokr_w1', 'lokr_w2'].map((part) => matrix(each, part, rank, where));
    const [rowsLeft, columnsLeft] = shapeOf(left!);
    const [rowsRight, columnsRight] = shapeOf(right!);
    return {
      module: each.module,
      layer: each.layer,
      inputs: columnsLeft * columnsRight,
      outputs: rowsLeft * rowsRight,
      form: { kind: 'kronecker', left: left!, right: right!, scaling },
      idleIfZero: [left!, right!].flatMap(({ a, b }) => (b === undefined ? [a] : [a, b])),
    };
  });
}

function refuseTucker({ module, parts }: ModuleParts, tucker: string[], where: string): void {
  const part = tucker.find((each) => parts.has(each));
  if (part === undefined) return;
  throw unsupportedFeature(
    where,
    `module "${module}" has ${part}, a core of a convolution (use_effective_conv2d)`,
    'Weldline merges linear layers and will not merge the adapter in part.',
  );
}

/** A matrix in two factors of the configured rank. */
function factors(
  each: ModuleParts,
  part: string,
  rank: number,
  where: string,
): Required<MatrixEntry> {
  const [a, b] = [`${part}_a`, `${part}_b`].map((name) => requirePart(each, name, where));
  requireShape(each, `${part}_a`, a!, [undefined, rank], where);
  requireShape(each, `${part}_b`, b!, [rank, undefined], where);
  return { a: a!, b: b! };
}

/** A matrix that is whole or in two factors, and not both. */
function matrix(each: ModuleParts, part: string, rank: number, where: string): MatrixEntry {
  const whole = each.parts.get(part);
  if (whole === undefined) return factors(each, part, rank, where);
  requireShape(each, part, whole, [undefined, undefined], where);
  const spare = [`${part}_a`, `${part}_b`].find((name) => each.parts.has(name));
  if (spare === undefined) return { a: whole };
  throw unsupportedFeature(
    where,
    `module "${each.module}" has ${part} and ${spare}, of which only one can be meant`,
    'Save the adapter again with PEFT.',
  );
}

function shapeOf({ a, b }: MatrixEntry): readonly [number, number] {
  const extent = (tensor: TensorEntry, index: number): number => tensor.shape[index] ?? 0;
  return [extent(a, 0), extent(b ?? a, 1)];
}
