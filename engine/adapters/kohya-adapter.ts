import { decodeElements } from '../../kernels/index.ts';
import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import { type Dtype, isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { type LoraConfig, loraConfigOf } from './adapter-config.ts';
import type { FoundPair } from './lora-pair.ts';
import type { ModuleScaling } from './scaling.ts';

/** What a kohya adapter is, in the terms of PEFT. Modules are named without dots. */
export interface KohyaAdapter {
  readonly config: LoraConfig;
  readonly found: readonly FoundPair[];
  /** Of each pair. */
  readonly scalings: readonly ModuleScaling[];
  readonly warnings: readonly string[];
}

/** Parts of image models, by the prefixes of kohya's and diffusers' trainers. */
const IMAGE_MODEL =
  /^(lora_(unet|te\d?|transformer|prior)_|(unet|text_encoder(_2)?|diffusion_model)\.|transformer\.(single_)?transformer_blocks\.)/;

/** In the metadata of a file, what its trainer says of the base. */
const IMAGE_BASE = /^(sd_|sdxl|sd3|flux|lumina|hunyuan|stable-diffusion)/i;

/** The module's own prefix, and the wrappers that trainers leave. */
const PREFIX = /^(base_model\.model\.|lora_|lycoris_)/;

/**
 * Reads an adapter as kohya's sd-scripts save them: `lora_down` [r, in], `lora_up` [out, r] and a
 * scalar `alpha` for each module, whose path has underscores for dots. `W += alpha / r · up down`;
 * without an alpha it is the rank, so that the factor is 1. Source: `networks/lora.py`
 * (`LoRAModule`, `create_network_from_weights`).
 *
 * @param source the weight file, of which the alphas are read
 * @param metadata of its header
 * @throws WeldlineError `adapter.unsupported-feature` for image models and for what else such files
 *   can hold, `adapter.unknown-key`, `adapter.half-pair`, `adapter.bad-alpha`
 */
export async function readKohyaAdapter(
  source: ByteSource,
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): Promise<KohyaAdapter> {
  refuseImageModels(source.name, tensors, metadata);
  const pairs = new Map<string, FoundPair>();
  const alphas = new Map<string, number>();
  for (const tensor of tensors) {
    const { path, part } = parseName(tensor.name, source.name);
    const module = path.replace(PREFIX, '').replaceAll('.', '_');
    const pair: FoundPair = pairs.get(module) ?? { module, layer: 'linear' };
    const isTwice =
      part === 'alpha' ? alphas.has(module) : part === 'lora_up' ? pair.lora_B : pair.lora_A;
    if (isTwice) throw duplicate(source.name, tensor.name);
    if (part === 'alpha') alphas.set(module, await readAlpha(source, tensor));
    else if (part === 'lora_up') pair.lora_B = tensor;
    else pair.lora_A = tensor;
    pairs.set(module, pair);
  }
  const found = [...pairs.values()];
  const scalings = found.map((pair) => scalingOf(pair, alphas.get(pair.module), source.name));
  return {
    // What combinations take as its rank; PEFT's default would be another one.
    config: loraConfigOf({ r: scalings.reduce((r, { rank }) => Math.max(r, rank), 1) }),
    found,
    scalings,
    warnings: warningsOf(source.name, found, alphas),
  };
}

function refuseImageModels(
  where: string,
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): void {
  const part = tensors.find(({ name }) => IMAGE_MODEL.test(name))?.name;
  const said = metadata['modelspec.architecture'] ?? metadata['ss_base_model_version'] ?? '';
  if (part === undefined && !IMAGE_BASE.test(said)) return;
  const sign = part === undefined ? `its metadata says ${said.slice(0, 100)}` : `it has "${part}"`;
  throw new WeldlineError(
    'adapter.unsupported-feature',
    `${where} is a LoRA of an image model (${sign}). Weldline merges into language models; for this ` +
      'one use the tools of its trainer (sd-scripts, diffusers).',
  );
}

function parseName(name: string, where: string): { path: string; part: string } {
  const [, path, part] = /^(.+)\.(lora_down|lora_up|alpha)(?:\.weight)?$/.exec(name) ?? [];
  if (path !== undefined && part !== undefined) return { path, part };
  const [, feature] =
    /\.(lora_mid|dora_scale|hada_\w+|lokr_\w+|diff(?:_b)?|scalar)\b/.exec(name) ?? [];
  if (feature !== undefined) {
    throw new WeldlineError(
      'adapter.unsupported-feature',
      `${where}: tensor "${name}" belongs to ${feature}. Of the kohya layout weldline merges plain ` +
        'LoRA (lora_down, lora_up, alpha), and will not merge the adapter in part.',
    );
  }
  throw new WeldlineError(
    'adapter.unknown-key',
    `${where} has no adapter_config.json beside it, and tensor "${name}" is of no layout that goes ` +
      'without (kohya: lora_down, lora_up, alpha). Point to the directory that save_pretrained wrote.',
  );
}

async function readAlpha(source: ByteSource, tensor: TensorEntry): Promise<number> {
  const { name, dtype, shape, offset, byteLength } = tensor;
  const isScalar = shape.every((extent) => extent === 1) && shape.length <= 1;
  const alpha = isScalar ? decode(await source.read(offset, byteLength), dtype) : undefined;
  if (alpha !== undefined && Number.isFinite(alpha) && alpha > 0) return alpha;
  throw new WeldlineError(
    'adapter.bad-alpha',
    `${source.name}: "${name}" is ${alpha ?? `${dtype} [${shape.join(', ')}]`}; an alpha is one ` +
      'number above 0. Save the adapter again with its trainer.',
  );
}

/** Trainers write alphas in the dtype of the weights, or as torch makes tensors of numbers. */
function decode(bytes: Uint8Array, dtype: Dtype): number | undefined {
  if (isMergeDtype(dtype)) return decodeElements(bytes, KERNEL_DTYPE[dtype])[0];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === 'F64') return view.getFloat64(0, true);
  if (dtype === 'I64') return Number(view.getBigInt64(0, true));
  return undefined;
}

function scalingOf(
  { module, lora_A, lora_B }: FoundPair,
  alpha: number | undefined,
  where: string,
): ModuleScaling {
  if (lora_A === undefined || lora_B === undefined) {
    throw new WeldlineError(
      'adapter.half-pair',
      `${where}: module "${module}" has no lora_${lora_A === undefined ? 'down' : 'up'}. The file is ` +
        'incomplete; save the adapter again.',
    );
  }
  const rank = lora_A.shape[0] ?? 0;
  return { rank, alpha: alpha ?? rank, scaling: (alpha ?? rank) / rank };
}

function warningsOf(
  where: string,
  found: readonly FoundPair[],
  alphas: ReadonlyMap<string, number>,
): string[] {
  const without = found.filter(({ module }) => !alphas.has(module)).length;
  if (without === 0) return [];
  return [
    `${where}: ${without} of ${found.length} modules have no alpha. It is their rank, as for kohya's ` +
      'trainers, so what they add is not scaled. Check that the file was saved whole.',
  ];
}

function duplicate(where: string, name: string): WeldlineError {
  return new WeldlineError(
    'adapter.duplicate-key',
    `${where}: tensor "${name}" says again, in another spelling, what an earlier one said. Save ` +
      'the adapter again with its trainer.',
  );
}
