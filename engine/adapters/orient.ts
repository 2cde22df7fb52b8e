import { WeldlineError } from '../errors.ts';
import type { CheckpointTensor } from '../safetensors/checkpoint.ts';
import type { Adapter } from './adapter.ts';
import type { ModuleChange } from './kinds/module-change.ts';
import type { LoraPair } from './lora-pair.ts';

interface PairAndTarget {
  readonly pair: LoraPair | ModuleChange;
  readonly target: CheckpointTensor;
}

/** Inputs and outputs of a module, where its adapter tells, and the most inputs it can have. */
function sizesOf(pair: LoraPair | ModuleChange): {
  readonly inputs: number | undefined;
  readonly outputs: number | undefined;
  readonly inputsMax?: number | undefined;
} {
  if (!('a' in pair)) return pair;
  const [outputs, inputs] = [pair.b.shape[0], pair.a.shape[1]];
  if (pair.outScale === undefined) return { inputs, outputs };
  return { inputs: undefined, inputsMax: inputs, outputs: pair.outScale.shape[0] };
}

/** MLX's factors are those of the transpose. */
function isOfTranspose(pair: LoraPair | ModuleChange): boolean {
  return 'a' in pair && pair.isOfTranspose === true;
}

function fits({ pair, target }: PairAndTarget): { plain: boolean; transposed: boolean } {
  const { inputs, outputs, inputsMax = Number.POSITIVE_INFINITY } = sizesOf(pair);
  const [rows, columns, ...rest] = target.shape;
  if (rows === undefined || columns === undefined || rest.length > 0) {
    return { plain: false, transposed: false };
  }
  const is = (extent: number, wanted: number | undefined): boolean => extent === (wanted ?? extent);
  return {
    plain: is(rows, outputs) && is(columns, inputs) && columns <= inputsMax,
    transposed: is(rows, inputs) && is(columns, outputs) && rows <= inputsMax,
  };
}

/**
 * What the modules that are not square say about how this base stores its weights.
 * @returns whether they are stored transposed; undefined if none says so or they disagree
 */
export function observeOrientation(modules: readonly PairAndTarget[]): boolean | undefined {
  const seen = new Set<boolean>();
  for (const module of modules) {
    if (module.pair.layer === 'embedding' || isOfTranspose(module.pair)) continue;
    const { plain, transposed } = fits(module);
    if (plain !== transposed) seen.add(transposed);
  }
  return seen.size === 1 ? [...seen][0] : undefined;
}

/**
 * Decides which way round a delta is added. The architecture decides where it is known; otherwise
 * the shape does; on a square weight `fan_in_fan_out` is believed only if the other modules show
 * that the base stores its weights so. (PEFT corrects the flag by the layer's class.) An embedding
 * is stored [vocabulary, hidden], so always [in, out].
 *
 * @param layerIsConv1d what the architecture table says, if it says anything
 * @param observed what the modules that are not square say
 * @throws WeldlineError `adapter.shape-mismatch`, `adapter.ambiguous-orientation`
 */
export function orient(
  adapter: Adapter,
  { pair, target }: PairAndTarget,
  layerIsConv1d: boolean | undefined,
  observed: boolean | undefined,
): { readonly transposed: boolean; readonly warning?: string } {
  const { plain, transposed: fitsTransposed } = fits({ pair, target });
  if (pair.layer === 'embedding') {
    if (!fitsTransposed) throw shapeMismatch(adapter, pair, target);
    return { transposed: true };
  }
  if (isOfTranspose(pair)) {
    // MLX has no layers stored [in, out]: it transposes their weights as it loads them.
    const transposed = layerIsConv1d !== true;
    if (!transposed && 'magnitude' in pair) throw mlxDoraByColumns(adapter, pair);
    if (transposed ? !fitsTransposed : !plain) throw shapeMismatch(adapter, pair, target);
    return { transposed };
  }
  const flag = adapter.config.fanInFanOut;
  const square = plain && fitsTransposed;
  const fallback = square ? flag && observed : fitsTransposed && flag;
  if (square && layerIsConv1d === undefined && fallback === undefined) {
    throw new WeldlineError(
      'adapter.ambiguous-orientation',
      `Adapter "${adapter.id}" sets fan_in_fan_out, and "${pair.module}" is square in an ` +
        'architecture whose layers are not known: which way round the delta belongs cannot be ' +
        'told. Set fan_in_fan_out to false in a copy of the adapter if the layer is a Linear.',
    );
  }
  const transposed = layerIsConv1d ?? fallback === true;
  if (transposed ? !fitsTransposed : !plain) throw shapeMismatch(adapter, pair, target);
  if (transposed === flag) return { transposed };
  return {
    transposed,
    warning:
      `Adapter "${adapter.id}" says fan_in_fan_out: ${flag}, but the base stores some of its ` +
      `layers ${transposed ? '[in, out]' : '[out, in]'}; the layers decide (as in PEFT).`,
  };
}

export function shapeMismatch(
  adapter: Adapter,
  pair: LoraPair | ModuleChange,
  target: CheckpointTensor,
): WeldlineError {
  const trainedOn = adapter.config.baseModel;
  const { inputs, outputs } = sizesOf(pair);
  const shape = [outputs ?? '…', inputs ?? '…'];
  if (pair.layer === 'embedding' || isOfTranspose(pair)) shape.reverse();
  return new WeldlineError(
    'adapter.shape-mismatch',
    `Adapter "${adapter.id}": module "${pair.module}" is for a weight of ` +
      `[${shape.join(', ')}], the base has [${target.shape.join(', ')}]. ` +
      (trainedOn === undefined ? '' : `The adapter was trained on ${trainedOn}. `) +
      'Use the base it was trained on. Nothing was written.',
  );
}

function mlxDoraByColumns(adapter: Adapter, { module }: LoraPair): WeldlineError {
  return new WeldlineError(
    'adapter.unsupported-feature',
    `${adapter.name}: module "${module}" has DoRA of MLX, and the base stores it [in, out]. This ` +
      'version of weldline merges that only into layers stored [out, in]. Nothing was written.',
  );
}
