import { findNodeAtLocation, parseTree } from 'jsonc-parser';
import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';
import { problemsOf } from '../schema-problems.ts';
import { isSet, unknownKey, unsupportedFeature } from './config-keys.ts';
import { type AdapterKind, OTHER_KINDS, translateConfig } from './kinds/kind-config.ts';

export const ADAPTER_CONFIG_FILE = 'adapter_config.json';

const layerNumber = z.number().int().nonnegative();
const tokenIndices = z.array(z.number().int().nonnegative());

/** Layers [first, one after the last]. */
const layerRanges = z.array(z.tuple([layerNumber, layerNumber]));

const numberByPattern = z.record(z.string(), z.number().positive());

/** The keys of PEFT's `LoraConfig` that decide the delta, with PEFT's defaults. */
const schema = z.looseObject({
  peft_type: z.string(),
  r: z.number().int().positive().default(8),
  lora_alpha: z.number().default(8),
  use_rslora: z.boolean().nullish(),
  rank_pattern: numberByPattern.nullish(),
  alpha_pattern: numberByPattern.nullish(),
  fan_in_fan_out: z.boolean().nullish(),
  target_modules: z.union([z.array(z.string()), z.string()]).nullish(),
  exclude_modules: z.union([z.array(z.string()), z.string()]).nullish(),
  layers_to_transform: z.union([z.array(z.number()), z.number()]).nullish(),
  modules_to_save: z.array(z.string()).nullish(),
  base_model_name_or_path: z.string().nullish(),
  revision: z.string().nullish(),
  ensure_weight_tying: z.boolean().nullish(),
  init_lora_weights: z.union([z.boolean(), z.string()]).nullish(),
  bias: z.string().nullish(),
  loftq_config: z.looseObject({}).nullish(),
  lora_bias: z.boolean().nullish(),
  use_dora: z.boolean().nullish(),
  target_parameters: z.array(z.string()).nullish(),
  layer_replication: layerRanges.nullish(),
  peft_version: z.string().nullish(),
  trainable_token_indices: z.union([tokenIndices, z.record(z.string(), tokenIndices)]).nullish(),
});

/** The configuration of an adapter; what other kinds call otherwise is under LoRA's names. */
export interface LoraConfig {
  readonly kind: AdapterKind;
  readonly r: number;
  readonly loraAlpha: number;
  readonly useRslora: boolean;
  readonly rankPattern: ReadonlyMap<string, number>;
  readonly alphaPattern: ReadonlyMap<string, number>;
  readonly fanInFanOut: boolean;
  /** Module names, a regular expression (a string in PEFT), or undefined. */
  readonly targetModules: readonly string[] | string | undefined;
  /** Whether keys narrow `target_modules` further, so that absent modules mean nothing. */
  readonly targetsAreNarrowed: boolean;
  readonly modulesToSave: readonly string[];
  /** Whether both sides of tied embeddings were trained as one. */
  readonly ensureWeightTying: boolean;
  /** Which of the base's biases were trained; all of them are stored. */
  readonly trainedBiases: 'none' | 'all' | 'lora_only';
  /** Whether each B has a bias of its own. */
  readonly loraBias: boolean;
  /** Whether each row of a merged weight is scaled to a trained length (DoRA). */
  readonly useDora: boolean;
  /**
   * Rows of embeddings that were trained, by the end of module names; under the empty name those of
   * the input embedding.
   */
  readonly tokenIndices: ReadonlyMap<string, readonly number[]>;
  /** Parameters that LoRA is on without a layer around it: fused experts. */
  readonly targetParameters: readonly string[];
  /** Layers [first, one after the last] that the trained model consists of; empty for the base's. */
  readonly layerReplication: readonly (readonly [number, number])[];
  /** Of the PEFT that saved it. */
  readonly peftVersion: string | undefined;
  readonly baseModel: string | undefined;
  readonly baseRevision: string | undefined;
  /** Of the weights that LoftQ began with. */
  readonly loftqBits: number | undefined;
}

/** These train what stands before the text. */
const PROMPT_TYPES = new Set(['PROMPT_TUNING', 'P_TUNING', 'PREFIX_TUNING']);

/** Features that change the delta or what is stored, and that are refused until they are exact. */
const UNSUPPORTED_FEATURES = [
  'use_qalora',
  'use_bdlora',
  'alora_invocation_tokens',
  'arrow_config',
  'kasa_config',
  'velora_config',
  'monteclora_config',
] as const;

/** Keys without influence on a finished adapter: how it was trained, initialised and described. */
const NEUTRAL_KEYS = new Set([
  ...Object.keys(schema.shape),
  'auto_mapping',
  'corda_config',
  'eva_config',
  'inference_mode',
  'layers_pattern',
  'lora_dropout',
  'lora_ga_config',
  'megatron_config',
  'megatron_core',
  'qalora_group_size',
  'runtime_config',
  'task_type',
  'unsloth_fixed',
]);

/** With these, training changes the factors but not the base they are applied to. */
const PLAIN_INITIALISATIONS = new Set<unknown>([
  undefined,
  null,
  true,
  false,
  'gaussian',
  'eva',
  'orthogonal',
]);

/**
 * Reads `adapter_config.json`.
 * @throws WeldlineError `adapter.config-missing`, `adapter.config-invalid`,
 *   `adapter.unsupported-type`, `adapter.unsupported-feature`
 */
export async function readAdapterConfig(files: ModelFiles): Promise<LoraConfig> {
  const where = `${files.name}/${ADAPTER_CONFIG_FILE}`;
  if (!files.sizes.has(ADAPTER_CONFIG_FILE)) {
    throw new WeldlineError(
      'adapter.config-missing',
      `${files.name} has no ${ADAPTER_CONFIG_FILE}, so it is no PEFT adapter. Point to the ` +
        'directory that save_pretrained wrote (trainers often write it to checkpoint-N/).',
    );
  }
  const text = await readTextFile(files, ADAPTER_CONFIG_FILE);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    throw new WeldlineError('adapter.config-invalid', `${where} is not JSON.`, { cause: error });
  }
  const { lora, kind } = translateConfig(json, where);
  const parsed = schema.safeParse(lora);
  if (!parsed.success) {
    throw new WeldlineError('adapter.config-invalid', `${where}: ${problemsOf(parsed.error)}.`);
  }
  refuseUnsupported(parsed.data, where);
  return toLoraConfig(parsed.data, kind, text);
}

/**
 * What a configuration of these values says: for adapters of other formats, whose own say less.
 * @param values keys of `adapter_config.json`; the others have PEFT's defaults
 */
export function loraConfigOf(values: Readonly<Record<string, unknown>>): LoraConfig {
  const config = schema.parse({ peft_type: 'LORA', ...values });
  return toLoraConfig(config, { type: 'LORA' }, '{}');
}

function isTrainedBiases(bias: string): bias is LoraConfig['trainedBiases'] {
  return bias === 'none' || bias === 'all' || bias === 'lora_only';
}

function refuseUnsupported(config: z.infer<typeof schema>, where: string): void {
  if (config.peft_type !== 'LORA') {
    throw new WeldlineError(
      'adapter.unsupported-type',
      `${where}: peft_type ${JSON.stringify(config.peft_type.slice(0, 100))} cannot be merged by ` +
        `this version of weldline; LORA, ${OTHER_KINDS.join(', ')} can. ` +
        (PROMPT_TYPES.has(config.peft_type)
          ? 'It trains a prompt and no weights, so there is nothing to merge; serve it with PEFT.'
          : 'If PEFT can (merge_and_unload), release the checkpoint that it saves.'),
    );
  }
  const refuse = (feature: string, remedy: string): WeldlineError =>
    unsupportedFeature(where, feature, remedy);
  const notYet = 'This version of weldline does not merge it and will not merge it in part.';
  const feature = UNSUPPORTED_FEATURES.find((key) => isSet(config[key]));
  if (feature !== undefined) throw refuse(`the adapter uses ${feature}`, notYet);
  if (!isTrainedBiases(config.bias ?? 'none')) {
    throw refuse(`bias: ${JSON.stringify(config.bias?.slice(0, 100))} is not known`, notYet);
  }
  if (!PLAIN_INITIALISATIONS.has(config.init_lora_weights)) {
    throw refuse(
      `init_lora_weights "${String(config.init_lora_weights).slice(0, 100)}" changes the base as it ` +
        'loads',
      'Convert the adapter with PEFT first (save_pretrained with ' +
        'path_initial_model_for_weight_conversion), which makes it a plain LoRA.',
    );
  }
  if (config.use_dora === true && config.lora_bias === true) {
    throw refuse('the adapter uses use_dora and lora_bias', notYet);
  }
  const unknown = Object.keys(config).find((key) => !NEUTRAL_KEYS.has(key) && isSet(config[key]));
  if (unknown !== undefined && !UNSUPPORTED_FEATURES.some((key) => key === unknown)) {
    throw unknownKey(where, unknown);
  }
}

/** A pattern dictionary in the order of the file: JavaScript objects move keys like "0" to the front. */
function inFileOrder(
  text: string,
  key: string,
  values: Readonly<Record<string, number>>,
): ReadonlyMap<string, number> {
  const root = parseTree(text);
  const node = root === undefined ? undefined : findNodeAtLocation(root, [key]);
  const names = (node?.children ?? []).map((property) => String(property.children?.[0]?.value));
  // AdaLoRA's rank_pattern has no numbers, and is read elsewhere.
  const known = names.filter((name) => Object.hasOwn(values, name));
  return new Map(known.map((name) => [name, values[name] as number]));
}

function tokenIndicesOf(
  indices: z.infer<typeof schema>['trainable_token_indices'],
): LoraConfig['tokenIndices'] {
  const named = Array.isArray(indices) ? [['', indices] as const] : Object.entries(indices ?? {});
  return new Map(named.filter(([, { length }]) => length > 0));
}

function bitsOfLoftq(config: z.infer<typeof schema>['loftq_config']): number | undefined {
  const bits = config?.['loftq_bits'];
  return typeof bits === 'number' ? bits : undefined;
}

function toLoraConfig(config: z.infer<typeof schema>, kind: AdapterKind, text: string): LoraConfig {
  const bias = config.bias ?? 'none';
  return {
    kind,
    r: config.r,
    loraAlpha: config.lora_alpha,
    useRslora: config.use_rslora === true,
    rankPattern: inFileOrder(text, 'rank_pattern', config.rank_pattern ?? {}),
    alphaPattern: inFileOrder(text, 'alpha_pattern', config.alpha_pattern ?? {}),
    fanInFanOut: config.fan_in_fan_out === true,
    targetModules: config.target_modules ?? undefined,
    targetsAreNarrowed: isSet(config.exclude_modules) || config.layers_to_transform != null,
    modulesToSave: config.modules_to_save ?? [],
    ensureWeightTying: config.ensure_weight_tying === true,
    trainedBiases: isTrainedBiases(bias) ? bias : 'none',
    loraBias: config.lora_bias === true,
    useDora: config.use_dora === true,
    tokenIndices: tokenIndicesOf(config.trainable_token_indices),
    targetParameters: config.target_parameters ?? [],
    layerReplication: config.layer_replication ?? [],
    peftVersion: config.peft_version ?? undefined,
    baseModel: config.base_model_name_or_path ?? undefined,
    baseRevision: config.revision ?? undefined,
    loftqBits: bitsOfLoftq(config.loftq_config),
  };
}
