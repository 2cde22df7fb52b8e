import { WeldlineError } from '../errors.ts';
import { isCopied } from '../merge/tensor-work.ts';
import type { PlannedShard, PlannedTensor } from '../plan/plan.ts';
import { bytesOf, type MergeDtype } from '../safetensors/dtype.ts';
import { scanValues } from '../safetensors/scan-values.ts';

/** Looks for Inf and NaN in what was merged of a shard, while its bytes pass by in file order. */
export class NonFiniteScan {
  readonly #tensors: readonly PlannedTensor[];
  #begun: Uint8Array = new Uint8Array();
  #found: string | undefined;

  constructor(shard: PlannedShard) {
    this.#tensors = shard.tensors.filter((tensor) => tensor.byteLength > 0 && !isCopied(tensor));
  }

  /** @param offset where the piece lies in the file */
  visit(piece: Uint8Array, offset: number): void {
    for (const tensor of this.#tensors) {
      if (this.#found !== undefined || tensor.offset >= offset + piece.length) return;
      const begin = Math.max(0, tensor.offset - offset);
      const end = Math.min(piece.length, tensor.offset + tensor.byteLength - offset);
      if (begin >= end) continue;
      const values = piece.subarray(begin, end);
      if (this.#hasNonFinite(values, tensor.dtype as MergeDtype)) this.#found = tensor.name;
    }
  }

  /** Of an element that lies across the edge of two pieces, the beginning is kept. */
  #hasNonFinite(values: Uint8Array, dtype: MergeDtype): boolean {
    const bytes = bytesOf(dtype);
    const missing = (bytes - this.#begun.length) % bytes;
    const across = Uint8Array.of(...this.#begun, ...values.subarray(0, missing));
    const whole = values.length - ((values.length - missing) % bytes);
    this.#begun = values.slice(Math.max(missing, whole));
    return [across, values.subarray(missing, whole)].some(
      (elements) => scanValues(elements, dtype).nonFinite,
    );
  }

  /** @throws WeldlineError `verify.non-finite` if there were any */
  finish(): void {
    if (this.#found === undefined) return;
    throw new WeldlineError(
      'verify.non-finite',
      `"${this.#found}" holds infinite values or NaN. Delete the output and merge again.`,
    );
  }
}
