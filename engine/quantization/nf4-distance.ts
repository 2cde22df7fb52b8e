import { decodeElements } from '../../kernels/index.ts';
import type { ModelFiles } from '../model-files.ts';
import { bytesOf, elementCount, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';
import { CODE_TABLES } from './code-tables.ts';
import { NF4_BLOCK, quantizeBlock } from './nf4.ts';
import type { SimulatedSource } from './simulate-nf4.ts';

/** Weights that are sampled, evenly spread over the model. */
const TENSORS_MAX = 12;

/** Pieces of each, and blocks in each piece: some 200,000 values of a model in all. */
const PIECES = 4;
const BLOCKS_PER_PIECE = 64;

/** How far apart the two choices of what is merged onto are, measured on samples. */
export interface Nf4Distance {
  /** ‖W − nf4(W)‖ / ‖W‖, Frobenius norms over all that was sampled. */
  readonly relative: number;
  readonly tensors: number;
  readonly values: number;
}

/**
 * Measures how far a base is from what NF4 makes of it, on a few hundred KB of it.
 *
 * @param simulated the weights that bitsandbytes would quantise, as `simulateNf4` finds them
 * @returns undefined if there is nothing to measure: no such weight, or only zeros
 */
export async function measureNf4Distance(
  files: ModelFiles,
  simulated: ReadonlyMap<string, SimulatedSource>,
): Promise<Nf4Distance | undefined> {
  // Blocks of a Conv1D go across what is stored, and would have to be read in full.
  const all = [...simulated.values()].filter(({ quantization }) => !quantization.transposed);
  const step = Math.max(1, Math.floor(all.length / TENSORS_MAX));
  const chosen = all.filter((_, index) => index % step === 0).slice(0, TENSORS_MAX);
  let [difference, square, values] = [0, 0, 0];
  for (const tensor of chosen) {
    for (const piece of await samplesOf(files, tensor)) {
      for (let at = 0; at < piece.length; at += NF4_BLOCK) {
        const sums = compareBlock(piece.subarray(at, at + NF4_BLOCK));
        difference += sums.difference;
        square += sums.square;
      }
      values += piece.length;
    }
  }
  if (!(square > 0)) return undefined;
  return { relative: Math.sqrt(difference / square), tensors: chosen.length, values };
}

/** Whole blocks from the beginning of each quarter of a weight; all of a small one. */
async function samplesOf(files: ModelFiles, tensor: SimulatedSource): Promise<Float32Array[]> {
  const dtype = tensor.dtype as MergeDtype;
  const count = elementCount(tensor.shape);
  const blocks = Math.ceil(count / NF4_BLOCK);
  const pieces =
    blocks <= BLOCKS_PER_PIECE ? 1 : Math.min(PIECES, Math.floor(blocks / BLOCKS_PER_PIECE));
  const source = await files.open(tensor.file);
  try {
    const samples: Float32Array[] = [];
    for (let piece = 0; piece < pieces; piece++) {
      const begin = Math.floor((piece * blocks) / pieces) * NF4_BLOCK;
      const length = Math.min(BLOCKS_PER_PIECE * NF4_BLOCK, count - begin);
      const size = bytesOf(dtype);
      const bytes = await source.read(tensor.offset + begin * size, length * size);
      samples.push(Float32Array.from(decodeElements(bytes, KERNEL_DTYPE[dtype])));
    }
    return samples;
  } finally {
    await source.close();
  }
}

function compareBlock(block: Float32Array): {
  readonly difference: number;
  readonly square: number;
} {
  const codes = new Uint8Array(NF4_BLOCK);
  const maximum = quantizeBlock(block, 0, codes);
  let [difference, square] = [0, 0];
  for (const [i, value] of block.entries()) {
    difference += (value - Math.fround(CODE_TABLES.nf4[codes[i]!]! * maximum)) ** 2;
    square += value ** 2;
  }
  return { difference, square };
}
