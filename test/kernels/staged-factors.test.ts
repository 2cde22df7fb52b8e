/** Factors as merges stage them: in pieces, out of stacks, at any byte, for bands inside an area. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FactorBlock, MergeKernel } from '../../kernels/index.ts';
import { ELEMENT_BYTES, packedLeftBytes, packedRightBytes } from '../../kernels/index.ts';
import type { KernelResult, MergeCase } from './kernel-pair.ts';
import { KERNEL_KINDS, newKernel, runMerge } from './kernel-pair.ts';
import { mergeCases } from './tensor-arbitrary.ts';

/** How the pieces of one factor lie in the staging area. */
interface Staging {
  readonly ranks: number;
  readonly lanes: number;
  readonly isLaneMajor: boolean;
  /** As of `experts` stacked ones each element is followed by those of the others. */
  readonly experts: number;
  /** Elements that nobody asks for, at the end of each stretch. */
  readonly gap: number;
  readonly byteOffset: number;
}

interface Manner {
  readonly left: Staging;
  readonly right: Staging;
  readonly inputOffset: number;
  readonly outputOffset: number;
  readonly isInPlace: boolean;
}

const staging: fc.Arbitrary<Staging> = fc.record({
  ranks: fc.integer({ min: 1, max: 70 }),
  lanes: fc.integer({ min: 1, max: 45 }),
  isLaneMajor: fc.boolean(),
  experts: fc.integer({ min: 1, max: 4 }),
  gap: fc.integer({ min: 0, max: 3 }),
  byteOffset: fc.integer({ min: 0, max: 9 }),
});

const manners: fc.Arbitrary<Manner> = fc.record({
  left: staging,
  right: staging,
  inputOffset: fc.integer({ min: 0, max: 33 }),
  outputOffset: fc.integer({ min: 0, max: 33 }),
  isInPlace: fc.boolean(),
});

interface Factor {
  readonly side: 'left' | 'right';
  readonly lanes: number;
  readonly rank: number;
  readonly bytes: Uint8Array;
  readonly dtype: MergeCase['factorDtype'];
  /** Where an element is stored. */
  readonly indexOf: (k: number, lane: number) => number;
}

function factorsOf({ rows, cols, rank, left, right, ...test }: MergeCase): Factor[] {
  const isLinear = test.layout === 'linear';
  const dtype = test.factorDtype;
  const byRank = (lanes: number) => (k: number, lane: number) => k * lanes + lane;
  const byLane = (k: number, lane: number): number => lane * rank + k;
  const leftIndex = isLinear ? byLane : byRank(rows);
  const rightIndex = isLinear ? byRank(cols) : byLane;
  return [
    { side: 'left', lanes: rows, rank, bytes: left, dtype, indexOf: leftIndex },
    { side: 'right', lanes: cols, rank, bytes: right, dtype, indexOf: rightIndex },
  ];
}

type Piece = Required<FactorBlock> & { readonly endByte: number };

/** The rectangles of a factor that are staged one after the other, and where each of them lies. */
function piecesOf({ rank, lanes, dtype }: Factor, how: Staging): Piece[] {
  const pieces: Piece[] = [];
  for (let rankBegin = 0; rankBegin < rank; rankBegin += how.ranks) {
    for (let laneBegin = 0; laneBegin < lanes; laneBegin += how.lanes) {
      const rankCount = Math.min(how.ranks, rank - rankBegin);
      const laneCount = Math.min(how.lanes, lanes - laneBegin);
      const { experts, byteOffset, gap } = how;
      const long = (count: number): number => count * experts + gap;
      const rankStride = how.isLaneMajor ? experts : long(laneCount);
      const laneStride = how.isLaneMajor ? long(rankCount) : experts;
      const last = (rankCount - 1) * rankStride + (laneCount - 1) * laneStride;
      const endByte = byteOffset + (last + 1) * ELEMENT_BYTES[dtype];
      const part = { rankBegin, rankCount, laneBegin, laneCount, rankStride, laneStride };
      pieces.push({ dtype, byteOffset, ...part, endByte });
    }
  }
  return pieces;
}

const lastByte = (factor: Factor, how: Staging): number =>
  Math.max(...piecesOf(factor, how).map(({ endByte }) => endByte));

function stageAndPack(kernel: MergeKernel, factor: Factor, how: Staging): void {
  const size = ELEMENT_BYTES[factor.dtype];
  for (const { endByte: _, ...block } of piecesOf(factor, how)) {
    // Whatever is read beside the piece is not a number, and shows.
    kernel.factor.fill(0xff);
    for (let k = 0; k < block.rankCount; k++) {
      for (let lane = 0; lane < block.laneCount; lane++) {
        const from = factor.indexOf(block.rankBegin + k, block.laneBegin + lane) * size;
        const at = block.byteOffset + (k * block.rankStride + lane * block.laneStride) * size;
        kernel.factor.set(factor.bytes.subarray(from, from + size), at);
      }
    }
    if (factor.side === 'left') kernel.packLeft(factor.lanes, factor.rank, block);
    else kernel.packRight(factor.rank, factor.lanes, block);
  }
}

/** @returns also whether a byte beside the results was written */
function runStaged(
  kind: (typeof KERNEL_KINDS)[number],
  test: MergeCase,
  manner: Manner,
): KernelResult & { readonly isTidy: boolean } {
  const count = test.rows * test.cols;
  const [inputBytes, outputBytes] = [test.dtypeIn, test.dtypeOut].map(
    (dtype) => count * ELEMENT_BYTES[dtype],
  ) as [number, number];
  const isInPlace = manner.isInPlace && inputBytes === outputBytes;
  const { inputOffset } = manner;
  const outputOffset = isInPlace ? inputOffset : manner.outputOffset;
  const [left, right] = factorsOf(test) as [Factor, Factor];
  // No area has a byte too many, but for those behind the results.
  const kernel = newKernel(kind, {
    inputBytesMax: inputOffset + inputBytes + (isInPlace ? 32 : 0),
    outputBytesMax: isInPlace ? 0 : outputOffset + outputBytes + 32,
    factorBytesMax: Math.max(lastByte(left, manner.left), lastByte(right, manner.right)),
    leftBytesMax: packedLeftBytes(test.rows, test.rank),
    rightBytesMax: packedRightBytes(test.cols, test.rank),
  });
  stageAndPack(kernel, right, manner.right);
  stageAndPack(kernel, left, manner.left);
  kernel.factor.fill(0xbb);
  kernel.output.fill(0xaa);
  kernel.input.set(test.weights, inputOffset);
  const nonFinite = kernel.merge({ ...test, inputOffset, outputOffset });
  const end = outputOffset + outputBytes;
  const bytes = kernel.output.slice(outputOffset, end);
  const around = [...kernel.output.subarray(0, outputOffset), ...kernel.output.subarray(end)];
  const isTidy =
    around.every((byte) => byte === 0xaa) && kernel.factor.every((byte) => byte === 0xbb);
  return { bytes, nonFinite, isTidy };
}

describe.each(KERNEL_KINDS)('factors staged in any way, %s', (kind) => {
  it('give the bytes of factors staged as a whole, and nothing around them is written', () => {
    fc.assert(
      fc.property(mergeCases, manners, (test, manner) => {
        expect(runStaged(kind, test, manner)).toEqual({
          ...runMerge('scalar', test),
          isTidy: true,
        });
      }),
      { numRuns: kind === 'scalar' ? 100 : 600 },
    );
  });
});
