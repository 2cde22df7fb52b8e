import type { z } from 'zod';
import { WeldlineError } from '../../errors.ts';
import { problemsOf } from '../../schema-problems.ts';
import { isSet, unknownKey } from '../config-keys.ts';
import { ADALORA, type AdaLoraKind, VERA } from './low-rank.ts';
import { LOHA, LOKR } from './lycoris.ts';
import { OFT, type OftKind } from './oft.ts';
import { IA3 } from './scaling-vectors.ts';

/** What the configuration says of an adapter's kind, beyond what all kinds have. */
export type AdapterKind =
  | { readonly type: 'LORA' | 'VERA' | 'LOHA' | 'LOKR' | 'IA3' }
  | AdaLoraKind
  | OftKind;

/** The configuration of a kind, said in the keys of LoRA's, and what those cannot say. */
export interface TranslatedConfig {
  readonly lora: Readonly<Record<string, unknown>>;
  readonly kind: AdapterKind;
}

/** How to read the configuration of one kind. */
export interface ConfigFamily {
  /** The keys of the kind, with PEFT's defaults. */
  readonly schema: z.ZodObject;
  /** Whether the kind has all the keys of LoRA, too. */
  readonly extendsLora?: boolean;
  /**
   * @param config what the schema made of the file
   * @param where the file, for errors
   */
  translate(config: Readonly<Record<string, unknown>>, where: string): TranslatedConfig;
}

const FAMILIES: ReadonlyMap<unknown, ConfigFamily> = new Map<unknown, ConfigFamily>([
  ['ADALORA', ADALORA],
  ['IA3', IA3],
  ['LOHA', LOHA],
  ['LOKR', LOKR],
  ['OFT', OFT],
  ['VERA', VERA],
]);

/** Kinds beside LoRA that can be merged, as `peft_type` spells them. */
export const OTHER_KINDS: readonly unknown[] = [...FAMILIES.keys()];

/** The keys that all kinds share: what was targeted, and where it comes from. */
const SHARED_KEYS = [
  ...['base_model_name_or_path', 'revision', 'target_modules', 'exclude_modules'],
  ...['layers_to_transform', 'modules_to_save'],
];

const NEUTRAL_KEYS = new Set([
  ...['auto_mapping', 'inference_mode', 'layers_pattern', 'peft_type', 'peft_version'],
  ...['task_type', 'unsloth_fixed'],
]);

/**
 * Says the configuration of an adapter of another kind in the keys of LoRA's; of LoRA, and of kinds
 * that are not known, it is returned as it is.
 *
 * @throws WeldlineError `adapter.config-invalid`, `adapter.unsupported-feature`
 */
export function translateConfig(json: unknown, where: string): TranslatedConfig {
  const given = (json ?? {}) as Readonly<Record<string, unknown>>;
  const family = FAMILIES.get(given['peft_type']);
  if (family === undefined) return { lora: given, kind: { type: 'LORA' } };
  const parsed = family.schema.safeParse(given);
  if (!parsed.success) {
    throw new WeldlineError('adapter.config-invalid', `${where}: ${problemsOf(parsed.error)}.`);
  }
  const { lora, kind } = family.translate(parsed.data, where);
  const own = new Set(Object.keys(family.schema.shape));
  const others = Object.entries(given).filter(([key]) => !own.has(key));
  if (family.extendsLora === true) {
    return { lora: { ...Object.fromEntries(others), ...lora, peft_type: 'LORA' }, kind };
  }
  const unknown = others.find(
    ([key, value]) => !SHARED_KEYS.includes(key) && !NEUTRAL_KEYS.has(key) && isSet(value),
  );
  if (unknown !== undefined) throw unknownKey(where, unknown[0]);
  const shared = others.filter(([key]) => SHARED_KEYS.includes(key));
  return { lora: { ...Object.fromEntries(shared), ...lora, peft_type: 'LORA' }, kind };
}
