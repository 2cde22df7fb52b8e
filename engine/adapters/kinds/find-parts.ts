import { WeldlineError } from '../../errors.ts';
import type { TensorEntry } from '../../safetensors/header.ts';
import type { LayerKind } from '../adapter-key.ts';
import type { AdapterKind } from './kind-config.ts';

/** The tensors that a file of a kind beside LoRA has for one module, by what they are. */
export interface ModuleParts {
  readonly module: string;
  readonly layer: LayerKind;
  readonly parts: ReadonlyMap<string, TensorEntry>;
}

/** The tensors of a file of a kind beside LoRA. */
export interface FoundParts {
  readonly modules: readonly ModuleParts[];
  /** Tensors that all modules share. */
  readonly shared: ReadonlyMap<string, TensorEntry>;
  /** What all kinds may have: whole tensors. */
  readonly rest: readonly TensorEntry[];
}

/**
 * Names of the tensors of each kind, after `base_model.model.`: module, part and, where it was saved
 * live, adapter. All but OFT's are parameters, so without `.weight`.
 */
const PARTS: Readonly<Record<Exclude<AdapterKind['type'], 'LORA'>, RegExp>> = {
  ADALORA: /^(.+)\.(lora_[ABE])(?:\.([^.]+))?$/,
  IA3: /^(.+)\.(ia3_l)(?:\.([^.]+))?$/,
  LOHA: /^(.+)\.(hada_(?:w[12]_[ab]|t[12]))(?:\.([^.]+))?$/,
  LOKR: /^(.+)\.(lokr_(?:w[12](?:_[ab])?|t2))(?:\.([^.]+))?$/,
  OFT: /^(.+)\.(oft_R|oft_embedding_R)(?:\.([^.]+))?\.weight$/,
  VERA: /^(.+)\.(vera_lambda_[bd])(?:\.([^.]+))?$/,
};

const PREFIX = 'base_model.model.';

/** VeRA's projections are the model's, not a module's. */
const SHARED = /^base_model\.(vera_[AB])(?:\.([^.]+))?$/;

/**
 * Sorts out the tensors that only an adapter of this kind has.
 *
 * @param where the adapter, for errors
 * @throws WeldlineError `adapter.duplicate-key`
 */
export function findParts(
  kind: AdapterKind,
  tensors: readonly TensorEntry[],
  where: string,
): FoundParts {
  if (kind.type === 'LORA') return { modules: [], shared: new Map(), rest: tensors };
  const modules = new Map<string, ModuleParts & { readonly parts: Map<string, TensorEntry> }>();
  const shared = new Map<string, TensorEntry>();
  const rest: TensorEntry[] = [];
  const adapterNames = new Set<string>();
  for (const tensor of tensors) {
    const own = tensor.name.startsWith(PREFIX)
      ? PARTS[kind.type].exec(tensor.name.slice(PREFIX.length))
      : null;
    const projection = kind.type === 'VERA' ? SHARED.exec(tensor.name) : null;
    if (own !== null) {
      const [, module = '', part = '', adapterName = 'default'] = own;
      adapterNames.add(adapterName);
      const layer = part === 'oft_embedding_R' ? 'embedding' : 'linear';
      const found = modules.get(module) ?? { module, layer, parts: new Map() };
      addOnce(found.parts, part, tensor, where);
      modules.set(module, found);
    } else if (projection !== null) {
      adapterNames.add(projection[2] ?? 'default');
      addOnce(shared, projection[1] ?? '', tensor, where);
    } else rest.push(tensor);
  }
  if (adapterNames.size > 1) throw severalAdapters(adapterNames, where);
  return { modules: [...modules.values()], shared, rest };
}

function addOnce(
  into: Map<string, TensorEntry>,
  part: string,
  tensor: TensorEntry,
  where: string,
): void {
  if (into.has(part)) {
    throw new WeldlineError(
      'adapter.duplicate-key',
      `${where}: tensor "${tensor.name}" says again, in another spelling, what an earlier one ` +
        'said. Save the adapter again with PEFT.',
    );
  }
  into.set(part, tensor);
}

function severalAdapters(adapterNames: ReadonlySet<string>, where: string): WeldlineError {
  return new WeldlineError(
    'adapter.duplicate-key',
    `${where} holds several adapters (${[...adapterNames].join(', ')}) in one file. Save ` +
      'each with save_pretrained(selected_adapters=[…]).',
  );
}

/**
 * A part that a module must have.
 * @throws WeldlineError `adapter.half-pair`
 */
export function requirePart(
  { module, parts }: ModuleParts,
  part: string,
  where: string,
): TensorEntry {
  const tensor = parts.get(part);
  if (tensor !== undefined) return tensor;
  throw new WeldlineError(
    'adapter.half-pair',
    `${where}: module "${module}" has ${[...parts.keys()].join(', ')} but no ${part}. The file is ` +
      'incomplete; save the adapter again.',
  );
}

/** @throws WeldlineError `adapter.bad-shape` */
export function requireShape(
  { module }: Pick<ModuleParts, 'module'>,
  part: string,
  tensor: TensorEntry,
  shape: readonly (number | undefined)[],
  where: string,
): void {
  const fits =
    tensor.shape.length === shape.length &&
    shape.every((extent, index) => extent === undefined || extent === tensor.shape[index]);
  if (fits) return;
  const wanted = shape.map((extent) => extent ?? '…').join(', ');
  throw new WeldlineError(
    'adapter.bad-shape',
    `${where}: module "${module}" has a ${part} of shape [${tensor.shape.join(', ')}]; expected ` +
      `[${wanted}]. The file does not belong to its adapter_config.json, or was cut; use the two ` +
      'that were saved together. (Convolutions are not supported.)',
  );
}
