import {
  createKernel,
  type FactorBlock,
  type KernelModule,
  loadElement,
  type MergeKernel,
  packedLeftBytes,
  packedRightBytes,
} from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { TensorReference } from '../plan/plan.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';
import type { ReadTensor } from '../verify/factor-rows.ts';

/** A factor of a delta: `lora_A` [rank, extent] or `lora_B` [extent, rank]. */
export interface Factor {
  readonly tensor: TensorReference;
  readonly rank: number;
  readonly extent: number;
  /** Whether a row as stored is one of the rank (`lora_A`), not one of the extent. */
  readonly isRankFirst: boolean;
}

/** Of factors X₁, X₂, … of one extent, as matrices [rank, extent]. */
export interface FactorProducts {
  /** `gram[j][i]` for i ≤ j is Xᵢ Xⱼᵀ, [rankᵢ, rankⱼ] in rows. */
  readonly gram: readonly (readonly Float64Array[])[];
  /** Of each factor the columns at the positions asked for, [position, rank] in rows. */
  readonly columns: readonly Float64Array[];
}

/** Factors are staged in pieces of this size, all of one extent beside each other. */
const STAGE_BYTES_MAX = 16 * 1024 * 1024;

/** Products are cut to this length: panels of both factors stay in a cache. */
const DEPTH_MAX = 1024;

interface Stretch {
  readonly begin: number;
  readonly count: number;
}

/**
 * Multiplies the small matrices of adapters with each other. The kernel that merges does it, with
 * float32 results: products and sums in float64, rounded once for every 1024 products, and added up
 * in float64 from there.
 */
export class FactorMultiplier {
  readonly #kernel: MergeKernel;
  readonly #read: ReadTensor;

  /** @param ranksMax the largest rank, and the largest sum of ranks of factors that are multiplied */
  constructor(
    module: KernelModule,
    ranksMax: { readonly one: number; readonly sum: number },
    read: ReadTensor,
  ) {
    const { one, sum } = ranksMax;
    this.#read = read;
    this.#kernel = createKernel(module, {
      // Stays zero: what products are added to.
      inputBytesMax: one * one * 4,
      outputBytesMax: one * one * 4,
      factorBytesMax: Math.max(STAGE_BYTES_MAX, sum * 4),
      leftBytesMax: packedLeftBytes(one, DEPTH_MAX),
      rightBytesMax: packedRightBytes(one, DEPTH_MAX),
    });
  }

  /** @param positions along the extent, ascending */
  async multiply(
    factors: readonly Factor[],
    positions: readonly number[],
  ): Promise<FactorProducts> {
    const extent = factors[0]?.extent ?? 0;
    assert(
      factors.every((factor) => factor.extent === extent),
      'factors of different extents are multiplied',
    );
    const gram = factors.map(({ rank }, j) =>
      factors.slice(0, j + 1).map((other) => new Float64Array(other.rank * rank)),
    );
    const columns = factors.map(({ rank }) => new Float64Array(positions.length * rank));
    const lane = factors.reduce((sum, factor) => sum + factor.rank * elementBytes(factor), 0);
    const step = Math.max(1, Math.floor(STAGE_BYTES_MAX / lane));
    for (let begin = 0; begin < extent; begin += step) {
      const stretch = { begin, count: Math.min(step, extent - begin) };
      const offsets = await this.#stage(factors, stretch);
      for (const [i, factor] of factors.entries()) {
        this.#gather(factor, offsets[i]!, stretch, positions, columns[i]!);
      }
      for (let at = 0; at < stretch.count; at += DEPTH_MAX) {
        const depth = { begin: at, count: Math.min(DEPTH_MAX, stretch.count - at) };
        this.#addProducts(factors, offsets, stretch.count, depth, gram);
      }
    }
    return { gram, columns };
  }

  /** Reads a stretch of each factor. @returns where in the staging area each begins */
  async #stage(factors: readonly Factor[], { begin, count }: Stretch): Promise<number[]> {
    const offsets: number[] = [];
    let end = 0;
    for (const factor of factors) {
      const { tensor, rank, extent, isRankFirst } = factor;
      const size = elementBytes(factor);
      offsets.push(end);
      if (!isRankFirst || count === extent) {
        const bytes = await this.#read(tensor, begin * rank * size, count * rank * size);
        this.#kernel.factor.set(bytes, end);
      } else {
        for (let k = 0; k < rank; k++) {
          const bytes = await this.#read(tensor, (k * extent + begin) * size, count * size);
          this.#kernel.factor.set(bytes, end + k * count * size);
        }
      }
      end += count * rank * size;
    }
    return offsets;
  }

  #gather(
    factor: Factor,
    offset: number,
    { begin, count }: Stretch,
    positions: readonly number[],
    into: Float64Array,
  ): void {
    const { buffer, byteOffset, byteLength } = this.#kernel.factor;
    const staged = new DataView(buffer, byteOffset, byteLength);
    const size = elementBytes(factor);
    const { dtype, rankStride, laneStride } = blockOf(factor, count);
    for (const [place, position] of positions.entries()) {
      if (position < begin || position >= begin + count) continue;
      const first = (position - begin) * rankStride;
      for (let k = 0; k < factor.rank; k++) {
        const at = offset + (first + k * laneStride) * size;
        into[place * factor.rank + k] = loadElement(staged, at, dtype);
      }
    }
  }

  /** For the kernel, what is summed over is the rank, and the ranks are lanes. */
  #addProducts(
    factors: readonly Factor[],
    offsets: readonly number[],
    staged: number,
    depth: Stretch,
    gram: FactorProducts['gram'],
  ): void {
    const kernel = this.#kernel;
    const block = (i: number): FactorBlock => {
      const placed = blockOf(factors[i]!, staged);
      const skipped = depth.begin * placed.rankStride * elementBytes(factors[i]!);
      return { ...placed, byteOffset: offsets[i]! + skipped };
    };
    const segments = [{ rank: depth.count, scale: 1 }];
    for (const [j, products] of gram.entries()) {
      kernel.packRight(depth.count, factors[j]!.rank, block(j));
      for (const [i, sums] of products.entries()) {
        kernel.packLeft(factors[i]!.rank, depth.count, block(i));
        kernel.merge({ segments, dtypeIn: 'f32', dtypeOut: 'f32' });
        const { buffer, byteOffset } = kernel.output;
        const result = new Float32Array(buffer, byteOffset, sums.length);
        for (let k = 0; k < sums.length; k++) sums[k]! += result[k]!;
      }
    }
  }
}

function blockOf({ tensor, rank, isRankFirst }: Factor, staged: number) {
  const dtype = KERNEL_DTYPE[tensor.dtype as MergeDtype];
  return isRankFirst
    ? { dtype, rankStride: 1, laneStride: staged }
    : { dtype, rankStride: rank, laneStride: 1 };
}

function elementBytes({ tensor }: Factor): number {
  return bytesOf(tensor.dtype as MergeDtype);
}
