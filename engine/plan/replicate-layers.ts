import { ADAPTER_CONFIG_FILE } from '../adapters/adapter-config.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import type { Checkpoint, CheckpointTensor } from '../safetensors/checkpoint.ts';
import type { OpenedAdapter } from './combine-adapters.ts';
import type { ConfigEdit, TensorSource } from './plan.ts';

/** Layers [first, one after the last] of the base, one range behind the other. */
type LayerRanges = readonly (readonly [number, number])[];

/** What adapters ask for, and which file says so. */
export interface Replication {
  readonly ranges: LayerRanges;
  readonly where: string;
}

/** What a merge starts from, as far as layers are concerned. */
interface LayeredBase {
  readonly checkpoint: Checkpoint;
  readonly quantized: ReadonlyMap<string, TensorSource>;
  readonly config: ModelConfig;
}

/** No model has as many layers. */
const LAYERS_MAX = 10_000;

/** Of a decoder, as PEFT finds its layers: at the top or under `model`. */
const LAYER = /^((?:model\.)?layers\.)(\d+)(\..+)$/;

/** Layers of something else: of a vision tower, an encoder. */
const OTHER_LAYER = /(^|\.)(layers|layer|blocks|h)\.\d+\./;

/** Architectures whose layers differ in nothing but their weights, and in what `layer_types` says. */
const UNIFORM_ARCHITECTURES = new Set([
  ...['llama', 'mistral', 'mixtral', 'gemma', 'granite', 'olmo2', 'phi3'],
  ...['qwen2', 'qwen3'],
]);

/**
 * The replication that all adapters of a merge were trained with.
 * @returns undefined if there is none
 * @throws WeldlineError `adapter.contradiction`
 */
export function replicationOf(adapters: readonly OpenedAdapter[]): Replication | undefined {
  const [first, ...others] = adapters.map(({ adapter }) => adapter);
  if (first === undefined) return undefined;
  const ranges = first.config.layerReplication;
  const other = others.find(({ config }) => String(config.layerReplication) !== String(ranges));
  if (other !== undefined) {
    throw new WeldlineError(
      'adapter.contradiction',
      `Adapters "${first.id}" and "${other.id}" differ in layer_replication, so they were trained on ` +
        'models of other layers. Merge one of them. Nothing was written.',
    );
  }
  if (ranges.length === 0) return undefined;
  return { ranges, where: `${first.name}/${ADAPTER_CONFIG_FILE}` };
}

/**
 * Makes the layers that an adapter with `layer_replication` was trained on (PEFT's
 * `replicate_layers`, where they share their weights): layer k of the result is the k-th of the
 * ranges, under its own name.
 *
 * @throws WeldlineError `adapter.unsupported-feature`, `adapter.shape-mismatch`
 */
export function replicateLayers<Base extends LayeredBase>(
  base: Base,
  { ranges, where }: Replication,
): Base {
  const layers = layersOf(base, where);
  const sources = ranges.flatMap(([first, end]) =>
    first < end && end <= layers ? Array.from({ length: end - first }, (_, i) => first + i) : [-1],
  );
  if (sources.includes(-1) || sources.length > LAYERS_MAX) {
    throw new WeldlineError(
      'adapter.shape-mismatch',
      `${where}: layer_replication is ${JSON.stringify(ranges)}, but the base has ${layers} layers. Use the ` +
        'base that the adapter was trained on. Nothing was written.',
    );
  }
  const copies = new Map<number, number[]>();
  for (const [copy, source] of sources.entries()) {
    copies.set(source, [...(copies.get(source) ?? []), copy]);
  }
  const namesOf = (name: string): readonly string[] => {
    const [, stem, layer, rest] = LAYER.exec(name) ?? [];
    if (layer === undefined) return [name];
    return (copies.get(Number(layer)) ?? []).map((copy) => `${stem}${copy}${rest}`);
  };
  const tensors = new Map<string, CheckpointTensor>();
  const files = base.checkpoint.files.map((file) => {
    const all = file.tensors.flatMap((tensor) =>
      namesOf(tensor.name).map((name) => ({
        ...(base.checkpoint.tensors.get(tensor.name) ?? tensor),
        name,
      })),
    );
    for (const tensor of all) tensors.set(tensor.name, tensor);
    return { ...file, tensors: all };
  });
  const quantized = [...base.quantized].flatMap(([name, source]) =>
    namesOf(name).map((copy) => [copy, source] as const),
  );
  return {
    ...base,
    checkpoint: { ...base.checkpoint, files, tensors },
    quantized: new Map(quantized),
  };
}

/** @throws WeldlineError `adapter.unsupported-feature` if layers may differ in more than weights */
function layersOf({ checkpoint, config }: LayeredBase, where: string): number {
  const root = parseJson(config.text) as Record<string, unknown>;
  const layers = new Set<string>();
  for (const name of checkpoint.tensors.keys()) {
    const layer = LAYER.exec(name)?.[2];
    if (layer !== undefined) layers.add(layer);
    else if (OTHER_LAYER.test(name)) throw refused(where, `it has other layers too ("${name}")`);
  }
  if (!UNIFORM_ARCHITECTURES.has(config.modelType ?? '')) {
    throw refused(
      where,
      `layers of its architecture (${config.modelType ?? 'no model_type'}) may differ`,
    );
  }
  if (layers.size !== root['num_hidden_layers']) {
    throw refused(
      where,
      `it holds ${layers.size} layers, and config.json says num_hidden_layers: ` +
        `${JSON.stringify(root['num_hidden_layers'])}`,
    );
  }
  if (root['use_sliding_window'] === true && root['layer_types'] === undefined) {
    throw refused(where, 'some of its layers have sliding windows');
  }
  for (const [key, list] of Object.entries(root)) {
    if (!isPerLayer(key, list) || list.length === 0) continue;
    if (list.length !== layers.size || list.some((value) => value !== list[0])) {
      throw refused(where, `its layers differ (${key} in config.json)`);
    }
  }
  return layers.size;
}

function isPerLayer(key: string, value: unknown): value is unknown[] {
  return /layer/.test(key) && Array.isArray(value);
}

/** What config.json must say of the layers that `replicateLayers` makes. */
export function replicationEdits(config: ModelConfig, ranges: LayerRanges): ConfigEdit[] {
  const count = ranges.reduce((sum, [first, end]) => sum + end - first, 0);
  const root = parseJson(config.text) as Record<string, unknown>;
  const lists = Object.entries(root).flatMap(([key, list]): ConfigEdit[] => {
    if (!isPerLayer(key, list) || list.length === 0) return [];
    return [{ path: [key], value: new Array(count).fill(list[0]) }];
  });
  return [{ path: ['num_hidden_layers'], value: count }, ...lists];
}

function refused(where: string, reason: string): WeldlineError {
  return new WeldlineError(
    'adapter.unsupported-feature',
    `${where}: the adapter was trained with layer_replication, and the layers of this base cannot be ` +
      `replicated exactly: ${reason}. Make the replicated model with PEFT and save it, and use it as ` +
      'the base. Nothing was written.',
  );
}
