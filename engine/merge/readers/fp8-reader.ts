import { decodeElements, storeElement } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { Fp8Quantization, PlannedTensor } from '../../plan/plan.ts';
import { FP8_VALUES } from '../../quantization/float-tables.ts';
import { bytesOf, isMergeDtype, KERNEL_DTYPE } from '../../safetensors/dtype.ts';
import type { InputFiles } from '../input-files.ts';
import type { Bits } from './packed-reader.ts';

/** Bytes that are read at a time. */
const CODE_BYTES = 256 * 1024;

const CODES = 256;

/** Reads FP8 weights with a scale for each block: one product in float32, rounded once. */
export class Fp8Reader {
  readonly #files: InputFiles;
  readonly #codes = new Uint8Array(CODE_BYTES);
  #taken: Fp8Quantization | undefined;
  /** The row of scales whose values are in the table, and the values of all codes in its blocks. */
  #scaleRow = -1;
  #values: Bits = new Uint16Array(0);

  constructor(files: InputFiles) {
    this.#files = files;
  }

  /** @param begin the element of the flattened weight that comes first */
  fill(tensor: PlannedTensor, quantization: Fp8Quantization, begin: number, into: Bits): void {
    const { from, name, shape } = tensor;
    const [rows, columns] = shape.slice(-2);
    assert(rows !== undefined && columns !== undefined, `${name} is no matrix`);
    if (this.#taken !== quantization) this.#scaleRow = -1;
    this.#taken = quantization;
    const scaleRows = Math.ceil(rows / quantization.blockRows);
    for (let done = 0; done < into.length; ) {
      const row = Math.floor((begin + done) / columns);
      const column = (begin + done) % columns;
      const count = Math.min(columns - column, into.length - done, CODE_BYTES);
      const inMatrix = Math.floor((row % rows) / quantization.blockRows);
      this.#takeScales(quantization, Math.floor(row / rows) * scaleRows + inMatrix, columns);
      const codes = this.#codes.subarray(0, count);
      this.#files.read(from, begin + done, codes);
      this.#look(codes, column, quantization.blockColumns, into.subarray(done, done + count));
      done += count;
    }
  }

  #takeScales(
    { scales, blockColumns, dtype }: Fp8Quantization,
    row: number,
    columns: number,
  ): void {
    if (this.#scaleRow === row) return;
    assert(isMergeDtype(scales.dtype), `scales are ${scales.dtype}`);
    const blocks = Math.ceil(columns / blockColumns);
    const bytes = new Uint8Array(blocks * bytesOf(scales.dtype));
    this.#files.read(scales, row * bytes.length, bytes);
    const size = bytesOf(dtype);
    const count = blocks * CODES;
    this.#values = size === 4 ? new Uint32Array(count) : new Uint16Array(count);
    const view = new DataView(this.#values.buffer);
    for (const [block, scale] of decodeElements(bytes, KERNEL_DTYPE[scales.dtype]).entries()) {
      for (let code = 0; code < CODES; code++) {
        const value = Math.fround(FP8_VALUES[code]! * scale);
        storeElement(view, (block * CODES + code) * size, KERNEL_DTYPE[dtype], value);
      }
    }
    this.#scaleRow = row;
  }

  #look(codes: Uint8Array, column: number, blockColumns: number, into: Bits): void {
    const values = this.#values;
    for (let i = 0; i < codes.length; ) {
      const block = Math.floor((column + i) / blockColumns);
      const end = Math.min(codes.length, (block + 1) * blockColumns - column);
      for (; i < end; i++) into[i] = values[block * CODES + codes[i]!]!;
    }
  }
}
