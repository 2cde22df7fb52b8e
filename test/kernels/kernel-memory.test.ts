import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import type { ArenaSpec } from '../../kernels/index.ts';
import {
  arenaBytes,
  ELEMENT_BYTES,
  packedLeftBytes,
  packedRightBytes,
} from '../../kernels/index.ts';
import {
  FAST_KINDS,
  KERNEL_KINDS,
  leftBlock,
  newKernel,
  rightBlock,
  runMerge,
} from './kernel-pair.ts';
import { fillTensor } from './tensor-arbitrary.ts';

const ROWS = 13;
const COLS = 27;
const RANK = 12;

const spec: ArenaSpec = {
  inputBytesMax: ROWS * COLS * 2 + 64,
  outputBytesMax: 0,
  factorBytesMax: 4096,
  leftBytesMax: packedLeftBytes(ROWS, RANK),
  rightBytesMax: packedRightBytes(COLS, RANK),
};

const test = {
  rows: ROWS,
  cols: COLS,
  rank: RANK,
  segments: [{ rank: RANK, scale: 0.25 }],
  dtypeIn: 'bf16',
  dtypeOut: 'f16',
  factorDtype: 'f32',
  layout: 'linear',
  weights: fillTensor(ROWS * COLS, 'bf16', 'plain', 1),
  left: fillTensor(ROWS * RANK, 'f32', 'plain', 2),
  right: fillTensor(RANK * COLS, 'f32', 'plain', 3),
} as const;

const expected = runMerge('scalar', test);

function packWhole(kernel: ReturnType<typeof newKernel>): void {
  kernel.factor.set(test.right);
  kernel.packRight(RANK, COLS, rightBlock('linear', 'f32', RANK, COLS));
  kernel.factor.set(test.left);
  kernel.packLeft(ROWS, RANK, leftBlock('linear', 'f32', RANK, ROWS, 0));
}

describe.each(KERNEL_KINDS)('a kernel in place, %s', (kind) => {
  it('overwrites the band, at any byte offset, and nothing around it', () => {
    for (const inputOffset of [0, 1, 7, 64]) {
      const kernel = newKernel(kind, spec);
      packWhole(kernel);
      kernel.input.fill(0xaa).set(test.weights, inputOffset);
      expect(kernel.merge({ ...test, inputOffset })).toBe(0);
      const end = inputOffset + test.weights.length;
      expect(kernel.output.slice(inputOffset, end)).toEqual(expected.bytes);
      const around = [...kernel.input.subarray(0, inputOffset), ...kernel.input.subarray(end)];
      expect(around.every((byte) => byte === 0xaa)).toBe(true);
    }
  });

  it('refuses to change the element size', () => {
    const kernel = newKernel(kind, { ...spec, inputBytesMax: ROWS * COLS * 4 });
    packWhole(kernel);
    expect(() => kernel.merge({ ...test, dtypeOut: 'f32' })).toThrow(/does not work in place/);
  });
});

describe.each(KERNEL_KINDS)('factors in pieces, %s', (kind) => {
  const merged = (kernel: ReturnType<typeof newKernel>): Uint8Array => {
    kernel.input.set(test.weights);
    kernel.merge(test);
    return kernel.output.slice(0, test.weights.length);
  };

  it('pack by ranks or by lanes, through a staging area smaller than the factor', () => {
    const kernel = newKernel(kind, { ...spec, factorBytesMax: COLS * 5 * 4 });
    for (let rankBegin = 0; rankBegin < RANK; rankBegin += 5) {
      const rankCount = Math.min(5, RANK - rankBegin);
      const begin = rankBegin * COLS * 4;
      kernel.factor.set(test.right.subarray(begin, begin + rankCount * COLS * 4));
      const block = {
        dtype: 'f32',
        rankStride: COLS,
        laneStride: 1,
        rankBegin,
        rankCount,
      } as const;
      kernel.packRight(RANK, COLS, block);
    }
    for (let laneBegin = 0; laneBegin < ROWS; laneBegin += 3) {
      const laneCount = Math.min(3, ROWS - laneBegin);
      const begin = laneBegin * RANK * 4;
      kernel.factor.set(test.left.subarray(begin, begin + laneCount * RANK * 4));
      const block = {
        dtype: 'f32',
        rankStride: 1,
        laneStride: RANK,
        laneBegin,
        laneCount,
      } as const;
      kernel.packLeft(ROWS, RANK, block);
    }
    expect(merged(kernel)).toEqual(expected.bytes);
  });

  it('pack one expert out of a rank-major stack', () => {
    const experts = 3;
    const stacked = new Float32Array(ROWS * RANK * experts).fill(Number.NaN);
    const left = new Float32Array(test.left.slice().buffer);
    left.forEach((value, i) => {
      stacked[i * experts + 1] = value;
    });
    const kernel = newKernel(kind, spec);
    packWhole(kernel);
    kernel.factor.set(new Uint8Array(stacked.buffer));
    const strides = { rankStride: experts, laneStride: experts * RANK };
    kernel.packLeft(ROWS, RANK, { dtype: 'f32', byteOffset: ELEMENT_BYTES.f32, ...strides });
    expect(merged(kernel)).toEqual(expected.bytes);
  });

  it('must fit the areas and have one rank', () => {
    const kernel = newKernel(kind, spec);
    const block = { dtype: 'f32', rankStride: COLS, laneStride: 1 } as const;
    expect(() => kernel.merge(test)).toThrow(RangeError);
    expect(() => kernel.packRight(RANK + 1, COLS, block)).toThrow(/right area/);
    expect(() => kernel.packRight(RANK, COLS, { ...block, rankStride: 999 })).toThrow(
      /factor area/,
    );
    expect(() => kernel.packRight(RANK, COLS, { ...block, laneBegin: 20, laneCount: 8 })).toThrow(
      /outside/,
    );
    packWhole(kernel);
    kernel.packRight(RANK - 1, COLS, block);
    expect(() => kernel.merge(test)).toThrow(/do not multiply/);
    packWhole(kernel);
    expect(() => kernel.merge({ ...test, inputOffset: 65 })).toThrow(/input area/);
  });

  it('must be divided by the segments, and by no more than there is room for', () => {
    const kernel = newKernel(kind, spec);
    packWhole(kernel);
    const mergeRanks = (...ranks: number[]): number =>
      kernel.merge({ ...test, segments: ranks.map((rank) => ({ rank, scale: 1 })) });
    expect(() => mergeRanks()).toThrow(/rank 0 in all/);
    expect(() => mergeRanks(RANK, 1)).toThrow(/rank 13 in all/);
    expect(() => mergeRanks(RANK, 0)).toThrow(/segment rank/);
    expect(() => mergeRanks(...Array<number>(257).fill(1))).toThrow(/257 segments/);
    expect(mergeRanks(...Array<number>(RANK).fill(1))).toBe(0);
  });
});

describe.each(KERNEL_KINDS)('the memory, %s', (kind) => {
  it('is shared: another thread sees the results where the views say', async () => {
    const kernel = newKernel(kind, spec);
    packWhole(kernel);
    kernel.input.set(test.weights);
    kernel.merge(test);
    const area = {
      memory: kernel.memory,
      begin: kernel.output.byteOffset,
      length: test.weights.length,
    };
    const reader = `const { createHash } = require('node:crypto');
      const { parentPort, workerData } = require('node:worker_threads');
      const { memory, begin, length } = workerData;
      const bytes = new Uint8Array(memory, begin, length);
      parentPort.postMessage(createHash('sha256').update(bytes).digest('hex'));`;
    const worker = new Worker(reader, { eval: true, workerData: area });
    const [digest] = await once(worker, 'message');
    expect(digest).toBe(createHash('sha256').update(expected.bytes).digest('hex'));
  });
});

describe.each(FAST_KINDS)('the arena, %s', (kind) => {
  it('states its bytes before any is allocated, and takes no more than its parts need', () => {
    const parts = spec.inputBytesMax + spec.factorBytesMax + spec.leftBytesMax + spec.rightBytesMax;
    const kernel = newKernel(kind, spec);
    expect(arenaBytes(spec)).toBe(kernel.input.buffer.byteLength);
    expect(arenaBytes(spec)).toBeLessThan(parts + 4 * 4096 + 2 * 65_536);
    expect(() => arenaBytes({ ...spec, rightBytesMax: 2 ** 32 })).toThrow(/over 4 GiB/);
    expect(() => arenaBytes({ ...spec, rightBytesMax: 1.5 })).toThrow(/whole number/);
  });

  it('starts its areas on pages, for direct I/O', () => {
    const kernel = newKernel(kind, { ...spec, outputBytesMax: 100 });
    const offsets = [kernel.input, kernel.output, kernel.factor].map((area) => area.byteOffset);
    expect(offsets.map((offset) => offset % 4096)).toEqual([0, 0, 0]);
    expect(new Set(offsets).size).toBe(3);
  });
});
