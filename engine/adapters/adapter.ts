import { WeldlineError } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import { isMergeDtype } from '../safetensors/dtype.ts';
import { readHeader, type TensorEntry } from '../safetensors/header.ts';
import { type LoraConfig, readAdapterConfig } from './adapter-config.ts';
import { type ExpertPair, isOnExperts, toExpertPair } from './expert-pair.ts';
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
  /** LoRA on fused parameters of experts. */
  readonly expertPairs: readonly ExpertPair[];
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
  const { found, ...others } = sortTensors(await readTensors(files), files.name);
  const expertPairs = found.filter(isOnExperts).map((each) => toExpertPair(files.name, each));
  const onLayers = found.filter((each) => !isOnExperts(each));
  const modules = onLayers.map(({ module }) => patternNameOf(module, config));
  const scalings = scalingsOf(config, modules, files.name);
  const pairs = onLayers.map((each, index) =>
    toPair(files.name, each, scalings[index] as ModuleScaling, config),
  );
  return { id, name: files.name, config, pairs, expertPairs, ...others };
}

/** What patterns are matched with: a parameter that is targeted itself has its own name at the end. */
function patternNameOf(module: string, { targetParameters }: LoraConfig): string {
  const parameter = `${module}.weight`;
  const isTarget = targetParameters.some((name) => `.${parameter}`.endsWith(`.${name}`));
  return isTarget ? parameter : module;
}

async function readTensors(files: ModelFiles): Promise<readonly TensorEntry[]> {
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
    for (const tensor of tensors) checkTensor(tensor, source.name);
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

function checkTensor(tensor: TensorEntry, where: string): void {
  if (tensor.byteLength === 0) {
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
