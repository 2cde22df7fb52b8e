import { WeldlineError } from '../errors.ts';

/** What a module is: an embedding's factors have names of their own. */
export type LayerKind = 'linear' | 'embedding';

/** What a tensor of an adapter is for. */
export type AdapterKey =
  | {
      readonly kind: 'lora_A' | 'lora_B';
      readonly layer: LayerKind;
      readonly module: string;
      readonly adapterName: string;
    }
  /** The bias of a B, which is added to the base's; the lengths that DoRA gives to rows. */
  | {
      readonly kind: 'lora_bias' | 'lora_magnitude';
      readonly module: string;
      readonly adapterName: string;
    }
  /** Rows that take the place of some of an embedding's. */
  | { readonly kind: 'tokens'; readonly module: string; readonly adapterName: string }
  /** What a tensor of `modules_to_save` was before the training. */
  | { readonly kind: 'original'; readonly tensor: string }
  /** A whole tensor that takes the place of the base's tensor of that name. */
  | { readonly kind: 'replacement'; readonly tensor: string };

const PREFIX = 'base_model.model.';

/** Suffixes of features that are refused by name; a test holds this list beside PEFT's layouts. */
const UNSUPPORTED_SUFFIXES: readonly (readonly [RegExp, string])[] = [
  [/(?<!\.experts)\.base_layer\.lora_[AB](\.|$)/, 'LoRA on several parameters of one module'],
  [/\.(lora_down|lora_up|alpha)(\.|$)/, 'the kohya layout'],
  [/\.(lora_E|ranknum)(\.|$)/, 'AdaLoRA'],
  [/\.hada_/, 'LoHa'],
  [/\.ia3_l(\.|$)/, '(IA)³'],
  [/\.lokr_/, 'LoKr'],
  [/\.b?oft_/, 'OFT'],
  [/\.vera_lambda_/, 'VeRA'],
];

/**
 * Reads the name of an adapter tensor. Layouts: PEFT's `get_peft_model_state_dict` (no adapter
 * name) and trainers that save the live names (`.lora_A.default.weight`,
 * `.modules_to_save.default.weight`).
 *
 * @param where the adapter, for errors
 * @throws WeldlineError `adapter.unknown-key`, `adapter.unsupported-feature`
 */
export function parseAdapterKey(key: string, where: string): AdapterKey {
  const unsupported = UNSUPPORTED_SUFFIXES.find(([pattern]) => pattern.test(key));
  if (unsupported !== undefined) {
    throw new WeldlineError(
      'adapter.unsupported-feature',
      `${where}: tensor "${key}" belongs to ${unsupported[1]}. This version of weldline does not ` +
        'merge it and will not merge the adapter in part.',
    );
  }
  if (!key.startsWith(PREFIX)) {
    throw new WeldlineError(
      'adapter.unknown-key',
      `${where}: tensor "${key}" does not begin with "${PREFIX}" as PEFT's do. Save the adapter ` +
        'with PEFT (save_pretrained).',
    );
  }
  const path = key.slice(PREFIX.length);
  const pair = /^(.+)\.(lora_[AB])(?:\.([^.]+))?\.weight$/.exec(path);
  if (pair !== null) {
    const [, module = '', kind, adapterName = 'default'] = pair;
    const half = kind === 'lora_A' ? 'lora_A' : 'lora_B';
    return { kind: half, layer: 'linear', module, adapterName };
  }
  const bias = /^(.+)\.lora_B(?:\.([^.]+))?\.bias$/.exec(path);
  if (bias !== null) {
    const [, module = '', adapterName = 'default'] = bias;
    return { kind: 'lora_bias', module, adapterName };
  }
  // A parameter in files, and a module in models and in files of some trainers. LyCORIS has its own
  // name for it.
  const magnitude =
    /^(.+)\.(?:lora_magnitude_vector|dora_scale)(?:\.(?!weight$)([^.]+))?(?:\.weight)?$/.exec(path);
  if (magnitude !== null) {
    const [, module = '', adapterName = 'default'] = magnitude;
    return { kind: 'lora_magnitude', module, adapterName };
  }
  // Parameters, not modules: without `.weight`.
  const embedding = /^(.+)\.lora_embedding_([AB])(?:\.([^.]+))?$/.exec(path);
  if (embedding !== null) {
    const [, module = '', half, adapterName = 'default'] = embedding;
    return { kind: half === 'A' ? 'lora_A' : 'lora_B', layer: 'embedding', module, adapterName };
  }
  // Called a delta, but it replaces.
  const tokens = /^(.+)\.token_adapter\.trainable_tokens_delta(?:\.([^.]+))?$/.exec(path);
  if (tokens !== null) {
    const [, module = '', adapterName = 'default'] = tokens;
    return { kind: 'tokens', module, adapterName };
  }
  const original = /^(.+)\.original_module\.(weight|bias)$/.exec(path);
  if (original !== null) return { kind: 'original', tensor: `${original[1]}.${original[2]}` };
  const tensor = replacedTensor(path);
  if (/\.(lora_|hada_|lokr_|token_adapter\.)/.test(tensor)) {
    throw new WeldlineError(
      'adapter.unknown-key',
      `${where}: tensor "${key}" is of no known LoRA layout. Save the adapter with PEFT.`,
    );
  }
  return { kind: 'replacement', tensor };
}

/**
 * The tensor of the base that a whole tensor takes the place of. Saved live, `modules_to_save` puts
 * the adapter's name between module and parameter. What a targeted module has beside its LoRA is
 * under `base_layer`: a trained bias, and of an embedding or a head the base weight it was trained on.
 */
function replacedTensor(path: string): string {
  return path
    .replace(/\.modules_to_save(\.[^.]+)?\.(weight|bias)$/, '.$2')
    .replace(/(\.token_adapter)?\.base_layer\.(weight|bias)$/, '.$2');
}
