/** The worker thread of a merge: takes chunks from a shared counter until none are left. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import {
  type ArenaSpec,
  createKernel,
  type KernelModule,
  type MergeKernel,
} from '../../kernels/index.ts';
import { toReadError, toWriteError } from '../disk-errors.ts';
import { assert, type ErrorCode, WeldlineError } from '../errors.ts';
import type { PlannedDelta, PlannedShard, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import { toWeldlineError } from '../to-weldline-error.ts';
import { type Chunk, kernelDtypes, outputRange, unitsOf, workOf } from './chunks.ts';
import { elementBytes, rowBytes, rowsPerPiece } from './resources.ts';

export interface MergeWorkerData {
  readonly module: KernelModule;
  readonly arena: ArenaSpec;
  readonly shard: PlannedShard;
  readonly chunks: readonly Chunk[];
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  readonly outputPath: string;
  /** Int32: [0] the next chunk, [1] non-zero to stop. */
  readonly control: SharedArrayBuffer;
}

export type MergeWorkerMessage =
  | { readonly kind: 'chunk'; readonly index: number; readonly crc32: number }
  | { readonly kind: 'error'; readonly code: ErrorCode; readonly message: string };

/** Slots of `control`. */
export const NEXT_CHUNK = 0;
export const STOP = 1;

class MergeWorker {
  readonly #data: MergeWorkerData;
  readonly #kernel: MergeKernel;
  readonly #output: number;
  readonly #inputs = new Map<string, number>();
  /** The tensor whose right factor is packed. */
  #packedTensor = -1;

  constructor(data: MergeWorkerData) {
    this.#data = data;
    this.#kernel = createKernel(data.module, data.arena);
    try {
      this.#output = openSync(data.outputPath, 'r+');
    } catch (error) {
      throw toWriteError(error, data.outputPath);
    }
  }

  run(report: (message: MergeWorkerMessage) => void): void {
    const control = new Int32Array(this.#data.control);
    while (Atomics.load(control, STOP) === 0) {
      const index = Atomics.add(control, NEXT_CHUNK, 1);
      const chunk = this.#data.chunks[index];
      if (chunk === undefined) return;
      report({ kind: 'chunk', index, crc32: this.#process(chunk) });
    }
  }

  close(): void {
    for (const file of this.#inputs.values()) closeSync(file);
    closeSync(this.#output);
  }

  /** Works out one chunk and writes it. @returns the CRC-32 of its bytes */
  #process(chunk: Chunk): number {
    const { shard, outputPath } = this.#data;
    const tensor = shard.tensors[chunk.tensor] as PlannedTensor;
    const { inputBytes } = unitsOf(tensor);
    const source = tensor.from;
    const length = (chunk.end - chunk.begin) * inputBytes;
    const { input, output } = this.#kernel;
    this.#read(source, chunk.begin * inputBytes, input.subarray(0, length));
    const nonFinite = this.#compute(tensor, chunk);
    if (nonFinite > 0) throw nonFiniteError(tensor, chunk, nonFinite);
    const range = outputRange(shard, chunk);
    const from = workOf(tensor) === 'copy' ? input : output;
    const bytes = from.subarray(0, range.end - range.begin);
    writeFully(this.#output, bytes, range.begin, outputPath);
    return crc32(bytes);
  }

  #compute(tensor: PlannedTensor, chunk: Chunk): number {
    const work = workOf(tensor);
    if (work === 'copy') return 0;
    const dtypes = kernelDtypes(tensor);
    const count = chunk.end - chunk.begin;
    if (work === 'cast') return this.#kernel.cast({ count, ...dtypes });
    const delta = tensor.delta as PlannedDelta;
    if (this.#packedTensor !== chunk.tensor) {
      this.#packRight(delta, tensor.shape[1] ?? 0);
      this.#packedTensor = chunk.tensor;
    }
    this.#packLeft(delta, chunk.begin, count);
    const segments = [{ rank: delta.rank, scale: delta.scaling }];
    return this.#kernel.merge({ segments, ...dtypes });
  }

  /** R [rank, columns]: A as stored, or Bᵀ; staged some stored rows at a time. */
  #packRight(delta: PlannedDelta, columns: number): void {
    const factor = delta.transposed ? delta.b : delta.a;
    const [rows = 0, rowElements = 0] = factor.shape;
    const step = rowsPerPiece(factor);
    for (let begin = 0; begin < rows; begin += step) {
      const count = Math.min(step, rows - begin);
      const bytes = count * rowBytes(factor);
      this.#read(factor, begin * rowBytes(factor), this.#kernel.factor.subarray(0, bytes));
      const block = delta.transposed
        ? { rankStride: 1, laneStride: rowElements, laneBegin: begin, laneCount: count }
        : { rankStride: rowElements, laneStride: 1, rankBegin: begin, rankCount: count };
      this.#kernel.packRight(delta.rank, columns, { dtype: kernelDtype(factor), ...block });
    }
  }

  /** L [rows, rank] of a band: rows of B, or columns of A. */
  #packLeft(delta: PlannedDelta, begin: number, rows: number): void {
    const { rank } = delta;
    if (!delta.transposed) {
      const bytes = rows * rowBytes(delta.b);
      this.#read(delta.b, begin * rowBytes(delta.b), this.#kernel.factor.subarray(0, bytes));
      const block = { dtype: kernelDtype(delta.b), rankStride: 1, laneStride: rank };
      this.#kernel.packLeft(rows, rank, block);
      return;
    }
    const pieceBytes = rows * elementBytes(delta.a);
    for (let k = 0; k < rank; k++) {
      const offset = k * rowBytes(delta.a) + begin * elementBytes(delta.a);
      const piece = this.#kernel.factor.subarray(k * pieceBytes, (k + 1) * pieceBytes);
      this.#read(delta.a, offset, piece);
    }
    const block = { dtype: kernelDtype(delta.a), rankStride: rows, laneStride: 1 };
    this.#kernel.packLeft(rows, rank, block);
  }

  /** Fills `into` from `offset` bytes into a tensor. */
  #read(tensor: TensorReference, offset: number, into: Uint8Array): void {
    const path = join(this.#data.roots[tensor.input] ?? '', tensor.file);
    try {
      this.#readFully(path, tensor.offset + offset, into);
    } catch (error) {
      throw toReadError(error, path);
    }
  }

  #readFully(path: string, offset: number, into: Uint8Array): void {
    let file = this.#inputs.get(path);
    if (file === undefined) {
      file = openSync(path, 'r');
      this.#inputs.set(path, file);
    }
    for (let done = 0; done < into.length; ) {
      const count = readSync(file, into, done, into.length - done, offset + done);
      if (count === 0) {
        throw new WeldlineError(
          'merge.input-changed',
          `${path} became shorter while it was merged. Restore it and resume.`,
        );
      }
      done += count;
    }
  }
}

function kernelDtype(factor: TensorReference): (typeof KERNEL_DTYPE)['BF16'] {
  assert(isMergeDtype(factor.dtype), `a factor has dtype ${factor.dtype}`);
  return KERNEL_DTYPE[factor.dtype];
}

function writeFully(file: number, bytes: Uint8Array, position: number, path: string): void {
  try {
    for (let done = 0; done < bytes.length; ) {
      const count = writeSync(file, bytes, done, bytes.length - done, position + done);
      assert(count > 0, 'a file took no bytes and gave no error');
      done += count;
    }
  } catch (error) {
    throw toWriteError(error, path);
  }
}

function nonFiniteError(tensor: PlannedTensor, chunk: Chunk, count: number): WeldlineError {
  const unit = workOf(tensor) === 'delta' ? 'rows' : 'elements';
  const hint =
    tensor.dtype === 'F16'
      ? ' float16 ends at 65504: merge with dtype bfloat16 or float32.'
      : ' The base or the adapter holds them already; check both.';
  return new WeldlineError(
    'merge.non-finite',
    `"${tensor.name}" would have ${count} values that are infinite or not a number (${unit} ` +
      `${chunk.begin} to ${chunk.end - 1}).${hint}`,
  );
}

function toMessage(error: unknown): MergeWorkerMessage {
  const { code, message } = toWeldlineError(error);
  return { kind: 'error', code, message };
}

if (parentPort !== null && workerData !== null) {
  const port = parentPort;
  const report = (message: MergeWorkerMessage): void => port.postMessage(message);
  try {
    const worker = new MergeWorker(workerData as MergeWorkerData);
    try {
      worker.run(report);
    } finally {
      worker.close();
    }
  } catch (error) {
    report(toMessage(error));
  }
}
