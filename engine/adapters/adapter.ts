import { WeldlineError } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import { isMergeDtype } from '../safetensors/dtype.ts';
import { readHeader, type TensorEntry } from '../safetensors/header.ts';
import { type LoraConfig, readAdapterConfig } from './adapter-config.ts';
import { findParts } from './kinds/find-parts.ts';
import type { ModuleChange } from './kinds/module-change.ts';
import { readModules } from './kinds/read-modules.ts';
import { type LoraPair, toPair } from './lora-pair.ts';
import { type ModuleScaling, scalingsOf } from './scaling.ts';
import { sortTensors, type TensorCopy } from './sort-tensors.ts';

export const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors';

/** What the headers of an adapter say; no weight has been read. */
export interface Adapter {
  readonly id: string;
  /** What a person would call it: a path or a URI. */
  readonly name: string;
  readonly config: LoraConfig;
  readonly pairs: readonly LoraPair[];
  /** What kinds beside LoRA do to modules that is no low-rank product. */
  readonly changes: readonly ModuleChange[];
  /** Modules that the training left as they were (AdaLoRA). */
  readonly untouched: readonly string[];
  /** Whole tensors that take the place of the base's, by the base tensor's name. */
  readonly replacements: ReadonlyMap<string, TensorEntry>;
  /** Second spellings of replacements, whose bytes must be those of the first. */
  readonly copies: readonly TensorCopy[];
  /** Rows that take the place of some of an embedding's, by its module. Shape [tokens, hidden]. */
  readonly tokens: ReadonlyMap<string, TensorEntry>;
}

/**
 * Reads an adapter's configuration and header and pairs its tensors up, strictly: unlike PEFT's
 * loader, a missing half, an unknown key or an empty tensor is an error.
 *
 * @throws WeldlineError `adapter.*`, or `safetensors.*` for a malformed file
 */
export async function readAdapter(id: string, files: ModelFiles): Promise<Adapter> {
  const config = await readAdapterConfig(files);
  const parts = findParts(config.kind, await readTensors(files, config), files.name);
  const { found, ...others } = sortTensors(parts.rest, files.name);
  if (config.kind.type !== 'LORA') {
    refuseLoraBeside(config, found, files.name);
    return { id, name: files.name, config, ...readModules(config, parts, files.name), ...others };
  }
  const modules = found.map(({ module }) => module);
  const scalings = scalingsOf(config, modules, files.name);
  const pairs = found.map((each, index) =>
    toPair(files.name, each, scalings[index] as ModuleScaling, config),
  );
  return { id, name: files.name, config, pairs, changes: [], untouched: [], ...others };
}

function refuseLoraBeside(
  { kind }: LoraConfig,
  found: readonly { readonly module: string }[],
  where: string,
): void {
  if (found.length === 0) return;
  throw new WeldlineError(
    'adapter.unknown-key',
    `${where}: module "${found[0]?.module}" has tensors of a LoRA, but adapter_config.json says ` +
      `peft_type ${kind.type}. Use the configuration that was saved with these weights.`,
  );
}

async function readTensors(
  files: ModelFiles,
  { kind }: LoraConfig,
): Promise<readonly TensorEntry[]> {
  if (!files.sizes.has(ADAPTER_WEIGHTS_FILE)) throw noAdapterWeights(files);
  const source = await files.open(ADAPTER_WEIGHTS_FILE);
  try {
    const { tensors } = await readHeader(source);
    if (tensors.length === 0) {
      throw new WeldlineError(
        'adapter.empty',
        `${source.name} holds no tensors. Under DeepSpeed ZeRO-3 the weights must be gathered ` +
          'before they are saved (stage3_gather_16bit_weights_on_model_save).',
      );
    }
    for (const tensor of tensors) {
      // AdaLoRA may leave a module a rank of 0; whether it did is checked with its configuration.
      const mayBeEmpty = kind.type === 'ADALORA' && /\.lora_[ABE](\.|$)/.test(tensor.name);
      checkTensor(tensor, source.name, mayBeEmpty);
    }
    return tensors;
  } finally {
    await source.close();
  }
}

function noAdapterWeights(files: ModelFiles): WeldlineError {
  if (files.sizes.has('adapter_model.bin')) {
    return new WeldlineError(
      'adapter.pickle',
      `${files.name} has its weights as a PyTorch pickle (adapter_model.bin). Weldline never ` +
        'executes pickles; load the adapter with PEFT and save it again (safe_serialization=True).',
    );
  }
  return new WeldlineError(
    'adapter.weights-missing',
    `${files.name} has no ${ADAPTER_WEIGHTS_FILE}. Point to the directory that PEFT's ` +
      'save_pretrained wrote.',
  );
}

function checkTensor(tensor: TensorEntry, where: string, mayBeEmpty: boolean): void {
  if (tensor.byteLength === 0 && !mayBeEmpty) {
    throw new WeldlineError(
      'adapter.empty-tensor',
      `${where}: tensor "${tensor.name}" has shape [${tensor.shape.join(', ')}], so no values. ` +
        'Under DeepSpeed ZeRO-3 the weights must be gathered before they are saved.',
    );
  }
  if (!isMergeDtype(tensor.dtype)) {
    throw new WeldlineError(
      'adapter.bad-dtype',
      `${where}: tensor "${tensor.name}" has dtype ${tensor.dtype}; adapters are F32, F16 or BF16.`,
    );
  }
}
