import { isConv1d } from '../architectures/conv1d.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import type { BlockQuantization, TensorReference, TensorSource } from '../plan/plan.ts';
import type { Checkpoint, CheckpointTensor } from '../safetensors/checkpoint.ts';
import { type Dtype, elementCount, type MergeDtype } from '../safetensors/dtype.ts';
import { CODE_TABLES } from './code-tables.ts';
import { parseQuantState } from './quant-state.ts';
import { readTensors } from './read-tensors.ts';

/** A checkpoint as it is without quantisation. */
export interface DequantizedCheckpoint {
  /** Quantised weights have the shape and dtype that they dequantise to; companions are left out. */
  readonly checkpoint: Checkpoint;
  /** Where the values of the quantised weights come from, by name. */
  readonly quantized: ReadonlyMap<string, TensorSource>;
}

/** Tensors that bitsandbytes keeps beside a weight `X.weight`, by the ends of their names. */
const STATE = /^(.+)\.quant_state\.bitsandbytes__([^.]*)$/;
const SCALES = /^(.+)\.SCB$/;
const COMPANION =
  /\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.[^/]*|SCB|weight_format)$/;

const SMALL = /\.(quant_map|weight_format|quant_state\.[^/]*)$/;

/** A state has 80 to 200 bytes of JSON, a table 64 bytes. */
const SMALL_BYTES_MAX = 4096;

/** Other versions may have computed their copy of the table in another way. */
const CODE_TOLERANCE = 1e-6;

/**
 * Binds the packed weights of a bitsandbytes checkpoint to their companions, from headers and the
 * few bytes of each weight's state.
 *
 * Sources: bitsandbytes' `QuantState` and `Linear8bitLt`, as transformers saves them.
 *
 * @throws WeldlineError `checkpoint.bad-quantization` naming the tensor that is missing, has another
 *   size, or says what is not known; `checkpoint.quantized-base` for a layer stored [in, out]
 */
export async function bindBitsandbytes(
  files: ModelFiles,
  checkpoint: Checkpoint,
  config: ModelConfig,
): Promise<DequantizedCheckpoint> {
  const values = await readTensors(files, smallTensors(files.name, checkpoint));
  return new Binder(files.name, checkpoint, config, values).bind();
}

/** The tensors whose values decide what a weight is. */
function smallTensors(where: string, checkpoint: Checkpoint): CheckpointTensor[] {
  const small = [...checkpoint.tensors.values()].filter(({ name }) => SMALL.test(name));
  const large = small.find(({ byteLength }) => byteLength > SMALL_BYTES_MAX);
  if (large === undefined) return small;
  throw badTensor(where, large.name, `has ${large.byteLength} bytes`);
}

interface LogicalWeight {
  readonly dtype: MergeDtype;
  readonly shape: readonly number[];
}

class Binder {
  readonly #where: string;
  readonly #checkpoint: Checkpoint;
  readonly #config: ModelConfig;
  readonly #companions = new Set<string>();
  readonly #weights = new Map<string, LogicalWeight>();
  readonly #sources = new Map<string, TensorSource>();
  readonly #values: ReadonlyMap<string, Uint8Array>;

  /** @param values of the small tensors, by name */
  constructor(
    where: string,
    checkpoint: Checkpoint,
    config: ModelConfig,
    values: ReadonlyMap<string, Uint8Array>,
  ) {
    this.#where = where;
    this.#checkpoint = checkpoint;
    this.#config = config;
    this.#values = values;
  }

  bind(): DequantizedCheckpoint {
    for (const name of this.#checkpoint.tensors.keys()) {
      const state = STATE.exec(name);
      if (state !== null) this.#bindBlocks(state[1]!, state[2]!, name);
      const scales = SCALES.exec(name);
      if (scales !== null) this.#bindRows(scales[1]!, name);
    }
    const withoutCompanions = (tensor: CheckpointTensor): CheckpointTensor[] => {
      if (this.#companions.has(tensor.name)) return [];
      this.#checkBound(tensor);
      return [{ ...tensor, ...this.#weights.get(tensor.name) }];
    };
    const files = this.#checkpoint.files.map((file) => ({
      ...file,
      tensors: file.tensors.flatMap(withoutCompanions),
    }));
    const all = files.flatMap(({ tensors }) => tensors);
    const tensors = new Map(all.map((tensor) => [tensor.name, tensor]));
    return { checkpoint: { ...this.#checkpoint, files, tensors }, quantized: this.#sources };
  }

  #bindBlocks(weight: string, suffix: string, stateName: string): void {
    if (this.#weights.has(weight)) throw this.#bad(weight, 'has more than one quant_state');
    const packed = this.#checkpoint.tensors.get(weight);
    if (packed === undefined) throw this.#bad(stateName, `has no weight "${weight}" beside it`);
    const stateBytes = this.#values.get(stateName) ?? new Uint8Array();
    const state = parseQuantState(stateBytes, `${this.#where}: "${stateName}"`);
    const { scheme, blockSize, dtype, shape } = state;
    if (suffix !== scheme) throw this.#bad(stateName, `speaks of ${scheme}`);
    const count = elementCount(shape);
    if (packed.byteLength !== Math.ceil(count / 2)) {
      const problem = `has ${packed.byteLength} bytes and not the ${Math.ceil(count / 2)} that`;
      throw this.#bad(weight, `${problem} its shape [${shape.join(', ')}] takes in 4 bits`);
    }
    this.#checkOrientation(weight);
    this.#companions.add(stateName);
    const map = this.#take(`${weight}.quant_map`, 'F32', [16]);
    this.#checkCodes(map.name, scheme);
    const blocks = Math.ceil(count / blockSize);
    const absmaxDtype = state.nested === undefined ? 'F32' : 'U8';
    const absmax = referTo(this.#take(`${weight}.absmax`, absmaxDtype, [blocks]));
    const quantization: BlockQuantization = { scheme, dtype, blockSize, absmax };
    if (state.nested !== undefined) {
      const outer = Math.ceil(blocks / state.nested.blockSize);
      quantization.nested = {
        ...state.nested,
        absmax: referTo(this.#take(`${weight}.nested_absmax`, 'F32', [outer])),
        map: referTo(this.#take(`${weight}.nested_quant_map`, 'F32', [256])),
      };
    }
    this.#weights.set(weight, { dtype, shape });
    this.#sources.set(weight, { ...referTo(packed), quantization });
  }

  #bindRows(module: string, scalesName: string): void {
    const name = `${module}.weight`;
    const weight = this.#checkpoint.tensors.get(name);
    if (weight === undefined) throw this.#bad(scalesName, `has no weight "${name}" beside it`);
    const { shape } = weight;
    if (weight.dtype !== 'I8' || shape.length !== 2) {
      throw this.#bad(name, `is ${weight.dtype} [${shape.join(', ')}] and no matrix of I8`);
    }
    const { dtype } = this.#config;
    if (dtype === undefined) {
      throw this.#bad(name, 'is LLM.int8, and config.json has no "dtype" that tells what it was');
    }
    this.#checkOrientation(name);
    const format = `${module}.weight_format`;
    if (this.#checkpoint.tensors.has(format)) {
      this.#take(format, 'U8', []);
      const value = this.#values.get(format)?.[0];
      if (value !== 0) throw this.#bad(format, `is ${value}; only 0, rows, is known`);
    }
    const scales = referTo(this.#take(scalesName, 'F32', [shape[0]!]));
    this.#weights.set(name, { dtype, shape });
    const quantization = { scheme: 'int8', dtype: 'F32', scales } as const;
    this.#sources.set(name, { ...referTo(weight), quantization });
  }

  /** A companion that must be there, of this dtype and shape. */
  #take(name: string, dtype: Dtype, shape: readonly number[]): CheckpointTensor {
    const tensor = this.#checkpoint.tensors.get(name);
    if (tensor === undefined) throw this.#bad(name, 'is missing');
    if (tensor.dtype !== dtype || tensor.shape.join() !== shape.join()) {
      const found = `${tensor.dtype} [${tensor.shape.join(', ')}]`;
      throw this.#bad(name, `is ${found} and must be ${dtype} [${shape.join(', ')}]`);
    }
    this.#companions.add(name);
    return tensor;
  }

  #checkCodes(name: string, scheme: BlockQuantization['scheme']): void {
    const bytes = this.#values.get(name) ?? new Uint8Array();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const isKnown = CODE_TABLES[scheme].every(
      (value, code) => Math.abs(view.getFloat32(4 * code, true) - value) <= CODE_TOLERANCE,
    );
    if (!isKnown) throw this.#bad(name, `is not the table of ${scheme}`);
  }

  /** transformers turns the weight of a Conv1D before it quantises it, and not back. */
  #checkOrientation(weight: string): void {
    const module = weight.replace(/\.weight$/, '');
    if (isConv1d(this.#config.modelType, module) !== true) return;
    throw new WeldlineError(
      'checkpoint.quantized-base',
      `${this.#where}: "${weight}" belongs to a Conv1D and is quantised, turned round. This ` +
        'version does not turn it back; use the original 16-bit checkpoint.',
    );
  }

  /** What looks quantised, or like a part of it, must have been bound. */
  #checkBound({ name, dtype }: CheckpointTensor): void {
    if (this.#weights.has(name)) return;
    if (COMPANION.test(name)) throw this.#bad(name, 'belongs to no quantised weight');
    if ((dtype === 'U8' || dtype === 'I8') && name.endsWith('.weight')) {
      throw this.#bad(name, `is ${dtype} and has neither a quant_state nor SCB beside it`);
    }
  }

  #bad(name: string, problem: string): WeldlineError {
    return badTensor(this.#where, name, problem);
  }
}

function badTensor(where: string, name: string, problem: string): WeldlineError {
  return new WeldlineError(
    'checkpoint.bad-quantization',
    `${where}: "${name}" ${problem}. Restore the checkpoint as bitsandbytes saved it.`,
  );
}

function referTo(tensor: CheckpointTensor): TensorReference {
  const { file, offset, byteLength, dtype, shape } = tensor;
  return { input: 'base', file, offset, byteLength, dtype, shape: [...shape] };
}
