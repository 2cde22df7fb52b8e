import type { MergeKernel } from '../../../kernels/index.ts';
import type { PlannedTensor } from '../../plan/plan.ts';
import { bytesOf } from '../../safetensors/dtype.ts';
import type { InputFiles } from '../input-files.ts';
import { inputDtype, unitsOf } from '../tensor-work.ts';
import { Dequantizer } from './dequantizer.ts';

/** Reads what tensors are made from into the input area of a kernel: quantised weights as floats. */
export class SourceReader {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;
  /** Made for the first quantised weight: it has buffers of its own. */
  #dequantizer: Dequantizer | undefined;

  constructor(kernel: MergeKernel, files: InputFiles) {
    this.#kernel = kernel;
    this.#files = files;
  }

  /**
   * @param begin first of `count` units (see `unitsOf`)
   * @param offset where they go, in bytes
   */
  read(tensor: PlannedTensor, begin: number, count: number, offset: number): void {
    const { inputBytes } = unitsOf(tensor);
    if (tensor.from.quantization === undefined) {
      const into = this.#kernel.input.subarray(offset, offset + count * inputBytes);
      this.#files.read(tensor.from, begin * inputBytes, into);
      return;
    }
    const elements = inputBytes / bytesOf(inputDtype(tensor));
    this.#dequantizer ??= new Dequantizer(this.#kernel, this.#files);
    this.#dequantizer.dequantize(tensor, begin * elements, count * elements, offset);
  }
}
