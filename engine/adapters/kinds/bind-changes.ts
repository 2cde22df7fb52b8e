import { isConv1d } from '../../architectures/conv1d.ts';
import type { ModelConfig } from '../../architectures/model-config.ts';
import { WeldlineError } from '../../errors.ts';
import type { Checkpoint, CheckpointTensor } from '../../safetensors/checkpoint.ts';
import type { Adapter } from '../adapter.ts';
import { unsupportedFeature } from '../config-keys.ts';
import { observeOrientation, orient, shapeMismatch } from '../orient.ts';
import type { ModuleChange } from './module-change.ts';

/** A change and the tensor it is made to. */
export interface BoundChange {
  readonly change: ModuleChange;
  /** Whether the base stores the weight [in, out]. */
  readonly transposed: boolean;
  /** Whether the tensor is the module's bias. */
  readonly isBias: boolean;
}

interface Places {
  readonly checkpoint: Checkpoint;
  readonly config: ModelConfig;
  readonly toDisk: (tensor: string) => string;
  readonly targetOf: (name: string) => CheckpointTensor;
}

/**
 * Binds what kinds beside LoRA do to modules. Keys are names on disk.
 *
 * @throws WeldlineError `adapter.shape-mismatch`, `adapter.ambiguous-orientation`,
 *   `adapter.ambiguous-binding`, `adapter.unsupported-feature`
 */
export function bindChanges(
  adapter: Adapter,
  { checkpoint, config, toDisk, targetOf }: Places,
): ReadonlyMap<string, BoundChange> {
  const bound = new Map<string, BoundChange>();
  const add = (name: string, change: BoundChange): void => {
    if (bound.has(name)) throw boundTwice(adapter, name);
    bound.set(name, change);
  };
  const targets = adapter.changes.map((pair) => {
    const name = toDisk(`${pair.module}.weight`);
    return { name, pair, target: targetOf(name) };
  });
  const observed = observeOrientation(targets);
  for (const { name, pair: change, target } of targets) {
    const layerIsConv1d = isConv1d(config.modelType, change.module);
    const isScaled = change.form.kind === 'scale';
    const transposed =
      isScaled && orient(adapter, { pair: change, target }, layerIsConv1d, observed).transposed;
    if (!isScaled) checkLinear(adapter, change, target, layerIsConv1d === true);
    add(name, { change, transposed, isBias: false });
    if (change.form.kind !== 'scale' || change.form.by !== 'outputs') continue;
    // What scales the outputs of a layer scales its bias.
    const bias = toDisk(`${change.module}.bias`);
    const biasTarget = checkpoint.tensors.get(bias);
    if (biasTarget === undefined) continue;
    if (biasTarget.shape.join() !== String(change.outputs)) {
      throw shapeMismatch(adapter, change, biasTarget);
    }
    add(bias, { change, transposed, isBias: true });
  }
  return bound;
}

/** PEFT has LoHa, LoKr and OFT for `nn.Linear` only, and OFT for embeddings. */
function checkLinear(
  adapter: Adapter,
  change: ModuleChange,
  target: CheckpointTensor,
  layerIsConv1d: boolean,
): void {
  if (layerIsConv1d) {
    throw unsupportedFeature(
      adapter.name,
      `module "${change.module}" is stored [in, out] (Conv1D), and PEFT has no ` +
        `${adapter.config.kind.type} for such layers`,
      'Check that this is the base the adapter was trained on.',
    );
  }
  const [rows, columns, ...rest] = target.shape;
  const isEmbedding = change.layer === 'embedding';
  // An embedding is stored [tokens, outputs].
  const width = isEmbedding ? change.outputs : change.inputs;
  const height = isEmbedding ? undefined : change.outputs;
  const fits =
    rows !== undefined &&
    columns !== undefined &&
    rest.length === 0 &&
    rows === (height ?? rows) &&
    columns === (width ?? columns) &&
    (change.form.kind !== 'rotation' || columns % change.form.rotation.size === 0);
  if (!fits) throw shapeMismatch(adapter, change, target);
}

function boundTwice(adapter: Adapter, name: string): WeldlineError {
  return new WeldlineError(
    'adapter.ambiguous-binding',
    `Adapter "${adapter.id}" (${adapter.name}) changes "${name}" twice: two of its names mean that ` +
      'tensor. Remove the one that is not meant. Nothing was written.',
  );
}
