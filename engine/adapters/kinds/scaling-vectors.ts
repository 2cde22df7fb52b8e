import { z } from 'zod';
import { type FoundParts, requirePart, requireShape } from './find-parts.ts';
import type { ConfigFamily } from './kind-config.ts';
import type { ModuleChange } from './module-change.ts';

/** Keys of `IA3Config`. Which modules are feedforward shows in the shapes of the file. */
export const IA3: ConfigFamily = {
  schema: z.looseObject({
    fan_in_fan_out: z.boolean().nullish(),
    feedforward_modules: z.unknown().optional(),
    init_ia3_weights: z.unknown().optional(),
  }),
  translate: ({ fan_in_fan_out }) => ({ lora: { fan_in_fan_out }, kind: { type: 'IA3' } }),
};

/**
 * (IA)³'s changes: of a feedforward module ([1, in]) the inputs are scaled, of any other ([out, 1]) the
 * outputs, so its bias too (PEFT's `ia3.Linear.merge`).
 *
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`
 */
export function ia3Changes(found: FoundParts, where: string): ModuleChange[] {
  return found.modules.map((each) => {
    const vector = requirePart(each, 'ia3_l', where);
    const [rows, columns] = vector.shape;
    // A single number is one for an output: of a module with one input too, it fits only if it is.
    const isFeedforward = rows === 1 && columns !== 1;
    requireShape(each, 'ia3_l', vector, isFeedforward ? [1, undefined] : [undefined, 1], where);
    return {
      module: each.module,
      layer: each.layer,
      inputs: isFeedforward ? columns : undefined,
      outputs: isFeedforward ? undefined : rows,
      form: { kind: 'scale', vector, by: isFeedforward ? 'inputs' : 'outputs' },
      idleIfZero: [],
    };
  });
}
