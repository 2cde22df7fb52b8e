import { assert } from '../errors.ts';
import type { PlannedShard, PlannedTensor } from '../plan/plan.ts';
import { elementCount } from '../safetensors/dtype.ts';

interface Range {
  readonly begin: number;
  readonly bytes: Uint8Array;
}

/** Keeps some rows of a shard while its bytes pass by in file order, so that none is read for itself. */
export class CapturedRows {
  readonly #ranges: readonly Range[];
  readonly #byBegin: ReadonlyMap<number, Range>;
  /** The first range that is not whole yet. */
  #next = 0;

  /** @param rows of each tensor, as stored */
  constructor({ tensors }: PlannedShard, rows: (tensor: PlannedTensor) => readonly number[]) {
    const ranges = tensors.flatMap((tensor) => {
      if (tensor.byteLength === 0) return [];
      const columns = tensor.shape.at(-1) ?? 1;
      const rowBytes = (tensor.byteLength / elementCount(tensor.shape)) * columns;
      return rows(tensor).map((row) => ({
        begin: tensor.offset + row * rowBytes,
        bytes: new Uint8Array(rowBytes),
      }));
    });
    this.#ranges = ranges.sort((a, b) => a.begin - b.begin);
    this.#byBegin = new Map(ranges.map((range) => [range.begin, range]));
  }

  /** @param offset where the piece lies in the file */
  visit(piece: Uint8Array, offset: number): void {
    const pieceEnd = offset + piece.length;
    for (; this.#next < this.#ranges.length; this.#next++) {
      const { begin, bytes } = this.#ranges[this.#next] as Range;
      if (begin >= pieceEnd) return;
      const from = Math.max(begin, offset);
      const end = Math.min(begin + bytes.length, pieceEnd);
      bytes.set(piece.subarray(from - offset, end - offset), from - begin);
      if (end < begin + bytes.length) return;
    }
  }

  /** A row that was kept, as the file's bytes. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const range = this.#byBegin.get(offset);
    assert(range?.bytes.length === length, `no row was kept at byte ${offset}`);
    return range.bytes;
  }
}
