import { loadElement, storeElement } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { PlannedTensor, SimulatedQuantization, TensorReference } from '../plan/plan.ts';
import { CODE_TABLES } from '../quantization/code-tables.ts';
import { blockMaximum, NF4_BLOCK, quantizeBlock } from '../quantization/nf4.ts';
import { bytesOf, elementCount, isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import type { InputFiles } from './input-files.ts';
import type { Bits } from './packed-reader.ts';

/** Elements that are read at a time: whole blocks. */
const CHUNK_ELEMENTS = 1024 * NF4_BLOCK;

/** Reads weights as what bitsandbytes' NF4 would make of them: quantised and dequantised again. */
export class SimulatedReader {
  readonly #files: InputFiles;
  readonly #codes = new Uint8Array(NF4_BLOCK);
  /** The stored bits of the values that the codes of one block have. */
  readonly #values = new DataView(new ArrayBuffer(16 * 4));

  constructor(files: InputFiles) {
    this.#files = files;
  }

  /** @param begin the element of the flattened weight that comes first */
  fill(
    tensor: PlannedTensor,
    quantization: SimulatedQuantization,
    begin: number,
    into: Bits,
  ): void {
    if (quantization.transposed) {
      this.#fillColumns(tensor, quantization, begin, into);
      return;
    }
    const count = elementCount(tensor.shape);
    const end = begin + into.length;
    const first = begin - (begin % NF4_BLOCK);
    for (let at = first; at < end; at += CHUNK_ELEMENTS) {
      const wanted = Math.ceil((Math.min(end, at + CHUNK_ELEMENTS) - at) / NF4_BLOCK) * NF4_BLOCK;
      const values = this.#read(tensor.from, at, Math.min(wanted, count - at));
      for (let block = 0; block < values.length; block += NF4_BLOCK) {
        const part = values.subarray(block, block + NF4_BLOCK);
        const bits = this.#simulate(part, quantization);
        const target = at + block - begin;
        const from = Math.max(0, -target);
        const to = Math.min(part.length, into.length - target);
        for (let i = from; i < to; i++) into[target + i] = bits[this.#codes[i]!]!;
      }
    }
  }

  /** The same for a weight stored [in, out], of which blocks are 64 inputs of one output. */
  #fillColumns(
    { from, shape }: PlannedTensor,
    quantization: SimulatedQuantization,
    begin: number,
    into: Bits,
  ): void {
    const columns = shape[1] ?? 1;
    const end = begin + into.length;
    const block = new Float32Array(NF4_BLOCK);
    const bandElements = NF4_BLOCK * columns;
    for (let band = Math.floor(begin / bandElements); band * bandElements < end; band++) {
      const first = band * bandElements;
      const values = this.#read(from, first, bandElements);
      for (let column = 0; column < columns; column++) {
        for (let i = 0; i < NF4_BLOCK; i++) block[i] = values[i * columns + column]!;
        const bits = this.#simulate(block, quantization);
        for (let i = 0; i < NF4_BLOCK; i++) {
          const at = first + i * columns + column - begin;
          if (at >= 0 && at < into.length) into[at] = bits[this.#codes[i]!]!;
        }
      }
    }
  }

  #read(from: TensorReference, begin: number, count: number): Float32Array {
    const { dtype } = from;
    assert(isMergeDtype(dtype), `a weight of ${dtype} is simulated`);
    const size = bytesOf(dtype);
    const bytes = new Uint8Array(count * size);
    this.#files.read(from, begin * size, bytes);
    const view = new DataView(bytes.buffer);
    const values = new Float32Array(count);
    const kernelDtype = KERNEL_DTYPE[dtype];
    for (let i = 0; i < count; i++) values[i] = loadElement(view, i * size, kernelDtype);
    return values;
  }

  /** Sets the codes of a block, and returns what they stand for in it. */
  #simulate(block: Float32Array, { dtype }: SimulatedQuantization): Bits {
    const maximum = blockMaximum(block);
    quantizeBlock(block, maximum, this.#codes);
    const size = bytesOf(dtype);
    for (const [code, value] of CODE_TABLES.nf4.entries()) {
      storeElement(this.#values, code * size, KERNEL_DTYPE[dtype], Math.fround(value * maximum));
    }
    const { buffer } = this.#values;
    return size === 4 ? new Uint32Array(buffer, 0, 16) : new Uint16Array(buffer, 0, 16);
  }
}
