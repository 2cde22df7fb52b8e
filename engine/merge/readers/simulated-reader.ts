import { decodeElements, storeElement } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { PlannedTensor, SimulatedQuantization, TensorReference } from '../../plan/plan.ts';
import { CODE_TABLES } from '../../quantization/code-tables.ts';
import { NF4_BLOCK, quantizeBlock } from '../../quantization/nf4.ts';
import { bytesOf, elementCount, isMergeDtype, KERNEL_DTYPE } from '../../safetensors/dtype.ts';
import type { InputFiles } from '../input-files.ts';
import type { Bits } from './packed-reader.ts';

/** Elements that are read at a time: whole blocks. */
const CHUNK_ELEMENTS = 1024 * NF4_BLOCK;

/** Reads weights as what bitsandbytes' NF4 would make of them: quantised and dequantised again. */
export class SimulatedReader {
  readonly #files: InputFiles;
  readonly #codes = new Uint8Array(NF4_BLOCK);
  /** The stored bits of the values that the codes of one block have. */
  readonly #values32 = new Uint32Array(16);
  readonly #values16 = new Uint16Array(this.#values32.buffer, 0, 16);
  readonly #view = new DataView(this.#values32.buffer);
  /** What each float16 is in float32; made for the first weight that needs it. */
  #halfValues: Float32Array | undefined;

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
    const codes = this.#codes;
    for (let at = first; at < end; at += CHUNK_ELEMENTS) {
      const wanted = Math.ceil((Math.min(end, at + CHUNK_ELEMENTS) - at) / NF4_BLOCK) * NF4_BLOCK;
      const values = this.#read(tensor.from, at, Math.min(wanted, count - at));
      for (let block = 0; block < values.length; block += NF4_BLOCK) {
        const bits = this.#simulate(values, block, quantization);
        const target = at + block - begin;
        const from = Math.max(0, -target);
        const to = Math.min(NF4_BLOCK, values.length - block, into.length - target);
        for (let i = from; i < to; i++) into[target + i] = bits[codes[i]!]!;
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
        const bits = this.#simulate(block, 0, quantization);
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
    const values = new Float32Array(count);
    if (dtype === 'F32') {
      this.#files.read(from, begin * size, new Uint8Array(values.buffer));
      return values;
    }
    const halves = new Uint16Array(count);
    this.#files.read(from, begin * size, new Uint8Array(halves.buffer));
    if (dtype === 'BF16') {
      const words = new Uint32Array(values.buffer);
      for (let i = 0; i < count; i++) words[i] = halves[i]! << 16;
      return values;
    }
    this.#halfValues ??= Float32Array.from(decodeElements(allHalves(), 'f16'));
    for (let i = 0; i < count; i++) values[i] = this.#halfValues[halves[i]!]!;
    return values;
  }

  /** Sets the codes of a block, and returns what they stand for in it. */
  #simulate(values: Float32Array, begin: number, { dtype }: SimulatedQuantization): Bits {
    const maximum = quantizeBlock(values, begin, this.#codes);
    const size = bytesOf(dtype);
    for (let code = 0; code < 16; code++) {
      const value = Math.fround(CODE_TABLES.nf4[code]! * maximum);
      storeElement(this.#view, code * size, KERNEL_DTYPE[dtype], value);
    }
    return size === 4 ? this.#values32 : this.#values16;
  }
}

/** Every float16 there is, in the order of its bits. */
function allHalves(): Uint8Array {
  return new Uint8Array(Uint16Array.from({ length: 2 ** 16 }, (_, half) => half).buffer);
}
