import { isConv1d } from '../architectures/conv1d.ts';
import { WeldlineError } from '../errors.ts';
import type { TensorReference, TensorSource } from '../plan/plan.ts';
import type { Checkpoint, CheckpointTensor } from '../safetensors/checkpoint.ts';
import type { Dtype, MergeDtype } from '../safetensors/dtype.ts';
import type { DequantizedCheckpoint } from './bitsandbytes.ts';

/** A weight as it is without quantisation. */
export interface LogicalWeight {
  readonly name: string;
  readonly dtype: MergeDtype;
  readonly shape: readonly number[];
}

/** The parts of quantised weights in a checkpoint, taken one by one until none is left. */
export class QuantizedParts {
  readonly checkpoint: Checkpoint;
  readonly #where: string;
  readonly #modelType: string | undefined;
  /** Who saved it, for errors. */
  readonly #saver: string;
  readonly #companions = new Set<string>();
  /** By the name that is stored. */
  readonly #weights = new Map<string, LogicalWeight>();
  readonly #sources = new Map<string, TensorSource>();

  constructor(where: string, checkpoint: Checkpoint, modelType: string | undefined, saver: string) {
    this.#where = where;
    this.checkpoint = checkpoint;
    this.#modelType = modelType;
    this.#saver = saver;
  }

  /** A companion that must be there, of one of these dtypes, and of this shape if one is given. */
  take(name: string, dtypes: readonly Dtype[], shape?: readonly number[]): CheckpointTensor {
    const tensor = this.checkpoint.tensors.get(name);
    if (tensor === undefined) throw this.bad(name, 'is missing');
    this.check(tensor, dtypes, shape);
    this.drop(name);
    return tensor;
  }

  check(tensor: CheckpointTensor, dtypes: readonly Dtype[], shape?: readonly number[]): void {
    const isRight = shape === undefined || tensor.shape.join() === shape.join();
    if (isRight && dtypes.includes(tensor.dtype)) return;
    const wanted = `${dtypes.join(' or ')}${shape === undefined ? '' : ` [${shape.join(', ')}]`}`;
    const found = `${tensor.dtype} [${tensor.shape.join(', ')}]`;
    throw this.bad(tensor.name, `is ${found} and must be ${wanted}`);
  }

  /** A companion that the output does not have, and nothing is made from. */
  drop(name: string): void {
    this.#companions.add(name);
  }

  /** @throws WeldlineError `checkpoint.bad-quantization`, `checkpoint.quantized-base` for a Conv1D */
  add(
    stored: CheckpointTensor,
    weight: LogicalWeight,
    quantization: NonNullable<TensorSource['quantization']>,
  ): void {
    const { name } = weight;
    if (name !== stored.name && this.checkpoint.tensors.has(name)) {
      throw this.bad(name, `is there beside "${stored.name}", which is the same weight quantised`);
    }
    if (isConv1d(this.#modelType, name.replace(/\.weight$/, '')) === true) {
      throw this.refuse(`"${stored.name}" belongs to a Conv1D and is quantised, turned round`);
    }
    this.#weights.set(stored.name, weight);
    this.#sources.set(name, { ...referTo(stored), quantization });
  }

  /** @param isPart whether a tensor looks like a part of a quantised weight */
  finish(isPart: (tensor: CheckpointTensor) => boolean): DequantizedCheckpoint {
    const withoutCompanions = (tensor: CheckpointTensor): CheckpointTensor[] => {
      if (this.#companions.has(tensor.name)) return [];
      const weight = this.#weights.get(tensor.name);
      if (weight !== undefined) return [{ ...tensor, ...weight }];
      if (isPart(tensor)) throw this.bad(tensor.name, 'belongs to no quantised weight');
      return [tensor];
    };
    const files = this.checkpoint.files.map((file) => ({
      ...file,
      tensors: file.tensors.flatMap(withoutCompanions),
    }));
    const all = files.flatMap(({ tensors }) => tensors);
    const tensors = new Map(all.map((tensor) => [tensor.name, tensor]));
    return { checkpoint: { ...this.checkpoint, files, tensors }, quantized: this.#sources };
  }

  bad(name: string, problem: string): WeldlineError {
    return new WeldlineError(
      'checkpoint.bad-quantization',
      `${this.#where}: "${name}" ${problem}. Restore the checkpoint as ${this.#saver} saved it.`,
    );
  }

  /** For what is sound, but nothing that this version can dequantise. */
  refuse(what: string): WeldlineError {
    return new WeldlineError(
      'checkpoint.quantized-base',
      `${this.#where}: ${what}. This version of weldline does not dequantise that; use the ` +
        'original 16-bit checkpoint.',
    );
  }
}

export function referTo(tensor: CheckpointTensor): TensorReference {
  const { file, offset, byteLength, dtype, shape } = tensor;
  return { input: 'base', file, offset, byteLength, dtype, shape: [...shape] };
}
