import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import { readTorchFile } from '../pickles/torch-file.ts';
import { isMergeDtype } from '../safetensors/dtype.ts';
import { readHeader, type TensorEntry } from '../safetensors/header.ts';
import { type LoraConfig, readAdapterConfig } from './adapter-config.ts';
import { type AdapterFormat, recognizeFormat } from './adapter-format.ts';
import { type ExpertPair, isOnExperts, toExpertPair } from './expert-pair.ts';
import { findTwins, type Twins } from './find-twins.ts';
import { findParts } from './kinds/find-parts.ts';
import type { ModuleChange } from './kinds/module-change.ts';
import { readModules } from './kinds/read-modules.ts';
import { readKohyaAdapter } from './kohya-adapter.ts';
import { type LoraPair, toPair } from './lora-pair.ts';
import { readMlxAdapter } from './mlx-adapter.ts';
import { type ModuleScaling, scalingsOf } from './scaling.ts';
import { sortTensors, type TensorCopy } from './sort-tensors.ts';

/** What the headers of an adapter say. */
export interface Adapter {
  readonly id: string;
  /** What a person would call it: a path or a URI. */
  readonly name: string;
  readonly format: AdapterFormat;
  /** The file that holds all its tensors, relative to the adapter. */
  readonly weightsFile: string;
  readonly config: LoraConfig;
  readonly pairs: readonly LoraPair[];
  /** LoRA on fused parameters of experts. */
  readonly expertPairs: readonly ExpertPair[];
  /** What kinds beside LoRA do to modules that is no low-rank product. */
  readonly changes: readonly ModuleChange[];
  /** Modules that the training left as they were (AdaLoRA). */
  readonly untouched: readonly string[];
  /** Whole tensors that take the place of the base's, by the base tensor's name. */
  readonly replacements: ReadonlyMap<string, TensorEntry>;
  /** Second spellings of replacements, whose bytes must be those of the first. */
  readonly copies: readonly TensorCopy[];
  /** Tensors of what may be the two sides of tied embeddings that have the same values. */
  readonly twins: readonly Twins[];
  /** Rows that take the place of some of an embedding's, by its module. Shape [tokens, hidden]. */
  readonly tokens: ReadonlyMap<string, TensorEntry>;
  /** What its files leave open. */
  readonly warnings: readonly string[];
}

type AdapterContent = Omit<Adapter, 'id' | 'name' | 'format' | 'weightsFile' | 'twins'>;

/**
 * Reads an adapter's configuration and header, and values where it may have the two sides of tied
 * embeddings, and pairs its tensors up, strictly: unlike PEFT's
 * loader, a missing half, an unknown key or an empty tensor is an error. Other formats are read as
 * what they are in PEFT's terms.
 *
 * @throws WeldlineError `adapter.*`, or `safetensors.*` for a malformed file
 */
export async function readAdapter(id: string, files: ModelFiles): Promise<Adapter> {
  const { format, weightsFile } = await recognizeFormat(files);
  const content = await READERS[format](files, weightsFile);
  const twins = await withSource(files, weightsFile, (source) => findTwins(content, source));
  return { id, name: files.name, format, weightsFile, ...content, twins };
}

type Reader = (files: ModelFiles, weightsFile: string) => Promise<AdapterContent>;

const READERS: Readonly<Record<AdapterFormat, Reader>> = {
  peft: (files, weightsFile) => readPeft(files, weightsFile, readSafetensors),
  'peft-pickle': (files, weightsFile) => readPeft(files, weightsFile, readTorchFile),
  mlx: readMlx,
  kohya: readKohya,
};

type TensorReader = (source: ByteSource) => Promise<readonly TensorEntry[]>;

async function readPeft(
  files: ModelFiles,
  weightsFile: string,
  read: TensorReader,
): Promise<AdapterContent> {
  const config = await readAdapterConfig(files);
  const tensors = await withSource(files, weightsFile, (source) => readTensors(source, read));
  for (const tensor of tensors) {
    // AdaLoRA may leave a module a rank of 0; whether it did is checked with its configuration.
    const mayBeEmpty = config.kind.type === 'ADALORA' && /\.lora_[ABE](\.|$)/.test(tensor.name);
    checkTensor(tensor, `${files.name}/${weightsFile}`, mayBeEmpty);
  }
  const parts = findParts(config.kind, tensors, files.name);
  const { found, ...others } = sortTensors(parts.rest, files.name);
  if (config.kind.type !== 'LORA') {
    refuseLoraBeside(config, found, files.name);
    return { ...LORA_ALONE, config, ...readModules(config, parts, files.name), ...others };
  }
  const expertPairs = found.filter(isOnExperts).map((each) => toExpertPair(files.name, each));
  const onLayers = found.filter((each) => !isOnExperts(each));
  const modules = onLayers.map(({ module }) => patternNameOf(module, config));
  const scalings = scalingsOf(config, modules, files.name);
  const pairs = onLayers.map((each, index) =>
    toPair(files.name, each, scalings[index] as ModuleScaling, config),
  );
  return { ...LORA_ALONE, config, pairs, expertPairs, ...others };
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

/** What patterns are matched with: a parameter that is targeted itself has its own name at the end. */
function patternNameOf(module: string, { targetParameters }: LoraConfig): string {
  const parameter = `${module}.weight`;
  const isTarget = targetParameters.some((name) => `.${parameter}`.endsWith(`.${name}`));
  return isTarget ? parameter : module;
}

async function readMlx(files: ModelFiles, weightsFile: string): Promise<AdapterContent> {
  const read = (source: ByteSource) => readTensors(source, readSafetensors);
  const tensors = await withSource(files, weightsFile, read);
  for (const tensor of tensors) checkTensor(tensor, `${files.name}/${weightsFile}`);
  const { config, found, scaling, warnings } = await readMlxAdapter(files, tensors);
  const pairs = found.map((each) => toPair(files.name, each, scaling, config));
  return { config, pairs, ...NO_OTHERS, warnings };
}

async function readKohya(files: ModelFiles, weightsFile: string): Promise<AdapterContent> {
  return withSource(files, weightsFile, async (source) => {
    const tensors = await readTensors(source, readSafetensors);
    const { metadata } = await readHeader(source);
    const kohya = await readKohyaAdapter(source, tensors, metadata);
    const { config, found, scalings, warnings } = kohya;
    for (const { lora_A, lora_B } of found) {
      for (const tensor of [lora_A, lora_B]) if (tensor) checkTensor(tensor, source.name);
    }
    const pairs = found.map((each, index) =>
      toPair(files.name, each, scalings[index] as ModuleScaling, config),
    );
    return { config, pairs, ...NO_OTHERS, warnings };
  });
}

/** What adapters of one kind have none of. */
const LORA_ALONE = { expertPairs: [], changes: [], untouched: [], warnings: [] } as const;

/** Formats that have nothing but factors. */
const NO_OTHERS = {
  ...LORA_ALONE,
  replacements: new Map(),
  copies: [],
  tokens: new Map(),
} as const;

async function withSource<Result>(
  files: ModelFiles,
  path: string,
  read: (source: ByteSource) => Promise<Result>,
): Promise<Result> {
  const source = await files.open(path);
  try {
    return await read(source);
  } finally {
    await source.close();
  }
}

async function readSafetensors(source: ByteSource): Promise<readonly TensorEntry[]> {
  return (await readHeader(source)).tensors;
}

async function readTensors(
  source: ByteSource,
  read: TensorReader,
): Promise<readonly TensorEntry[]> {
  const tensors = await read(source);
  if (tensors.length > 0) return tensors;
  throw new WeldlineError(
    'adapter.empty',
    `${source.name} holds no tensors. Under DeepSpeed ZeRO-3 the weights must be gathered ` +
      'before they are saved (stage3_gather_16bit_weights_on_model_save).',
  );
}

function checkTensor(tensor: TensorEntry, where: string, mayBeEmpty = false): void {
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
