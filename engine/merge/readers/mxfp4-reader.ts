import { storeElement } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { Mxfp4Quantization, PlannedTensor } from '../../plan/plan.ts';
import {
  FP4_VALUES,
  MXFP4_BLOCK,
  MXFP4_BLOCK_BYTES,
  powerOf,
} from '../../quantization/float-tables.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../../safetensors/dtype.ts';
import type { InputFiles } from '../input-files.ts';
import type { Bits } from './packed-reader.ts';
import { readBand } from './read-band.ts';

/** Packed bytes of a band of rows: a piece of every row in the file. See `PackedReader`. */
const PACKED_BYTES = 1024 * 1024;

/**
 * Reads the experts of gpt-oss, stored [E, out, in / 32, 16], as the [E, in, out] that transformers'
 * `convert_moe_packed_tensors` makes of them: the low half of a byte first, times a power of two.
 */
export class Mxfp4Reader {
  readonly #files: InputFiles;
  #packed = new Uint8Array(0);
  #scales = new Uint8Array(0);
  #dtype: MergeDtype | undefined;
  /** The values of the 16 codes with each of 256 scales. */
  #values: Bits = new Uint16Array(0);

  constructor(files: InputFiles) {
    this.#files = files;
  }

  /** @param begin the element of the flattened weight that comes first */
  fill(tensor: PlannedTensor, quantization: Mxfp4Quantization, begin: number, into: Bits): void {
    const [, inputs, outputs] = tensor.shape;
    assert(inputs !== undefined && outputs !== undefined, `${tensor.name} is no [E, in, out]`);
    if (this.#dtype !== quantization.dtype) this.#fillValues(quantization.dtype);
    const end = begin + into.length;
    const blocksMax = Math.max(1, Math.floor(PACKED_BYTES / (outputs * MXFP4_BLOCK_BYTES)));
    const lastRow = Math.ceil(end / outputs);
    for (let row = Math.floor(begin / outputs); row < lastRow; ) {
      const expert = Math.floor(row / inputs);
      const block = Math.floor((row % inputs) / MXFP4_BLOCK);
      const bandEnd = Math.min(inputs, (block + blocksMax) * MXFP4_BLOCK);
      const last = Math.min(lastRow, expert * inputs + bandEnd);
      const blocks = Math.ceil((last - expert * inputs) / MXFP4_BLOCK) - block;
      this.#read(tensor, quantization, expert, block, blocks);
      for (; row < last; row++) {
        const from = Math.max(begin, row * outputs);
        const to = Math.min(end, (row + 1) * outputs);
        const input = (row % inputs) - block * MXFP4_BLOCK;
        this.#look(input, blocks, from - row * outputs, into.subarray(from - begin, to - begin));
      }
    }
  }

  #fillValues(dtype: MergeDtype): void {
    const size = bytesOf(dtype);
    this.#values = size === 4 ? new Uint32Array(256 * 16) : new Uint16Array(256 * 16);
    const view = new DataView(this.#values.buffer);
    for (let scale = 0; scale < 256; scale++) {
      for (let code = 0; code < 16; code++) {
        const value = Math.fround(FP4_VALUES[code]! * powerOf(scale));
        storeElement(view, (scale * 16 + code) * size, KERNEL_DTYPE[dtype], value);
      }
    }
    this.#dtype = dtype;
  }

  /** Some blocks of every output of an expert, and their scales: [out, blocks]. */
  #read(
    { from, shape }: PlannedTensor,
    { scales }: Mxfp4Quantization,
    expert: number,
    block: number,
    blocks: number,
  ): void {
    const [, inputs = 0, rows = 0] = shape;
    const all = inputs / MXFP4_BLOCK;
    if (this.#scales.length < rows * blocks) {
      this.#scales = new Uint8Array(rows * blocks);
      this.#packed = new Uint8Array(rows * blocks * MXFP4_BLOCK_BYTES);
    }
    const offset = expert * rows * all + block;
    readBand(this.#files, scales, { offset, rows, stride: all, bytes: blocks }, this.#scales);
    const packed = {
      offset: offset * MXFP4_BLOCK_BYTES,
      rows,
      stride: all * MXFP4_BLOCK_BYTES,
      bytes: blocks * MXFP4_BLOCK_BYTES,
    };
    readBand(this.#files, from, packed, this.#packed);
  }

  /** One input's weights, for the outputs from `first` on. */
  #look(input: number, blocks: number, first: number, into: Bits): void {
    const packed = this.#packed;
    const scales = this.#scales;
    const values = this.#values;
    const block = Math.floor(input / MXFP4_BLOCK);
    const shift = input % 2 === 0 ? 0 : 4;
    const byte = input >>> 1;
    const stride = blocks * MXFP4_BLOCK_BYTES;
    for (let i = 0; i < into.length; i++) {
      const output = first + i;
      const code = (packed[output * stride + byte]! >>> shift) & 15;
      into[i] = values[(scales[output * blocks + block]! << 4) | code]!;
    }
  }
}
