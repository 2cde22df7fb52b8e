import { open } from 'node:fs/promises';
import { WeldlineError } from '../../engine/errors.ts';
import { readGgufHeader } from './read-gguf-header.ts';

/** An importance matrix as `llama_model_quantize` takes it. */
export interface ImatrixData {
  /** Name of a tensor → mean square of what it is multiplied with, for each column. */
  readonly entries: ReadonlyMap<string, Float32Array>;
  /** The first data set it was made of, by the name it had then. */
  readonly dataset: string | undefined;
  readonly chunks: number;
}

const SUMS = '.in_sum2';
const COUNTS = '.counts';
const FLOAT_BYTES = 4;
const F32 = 0;

/**
 * Reads an importance matrix in GGUF, as `llama-imatrix` writes it, and divides its sums by their
 * counts as `load_imatrix` of llama-quantize does.
 *
 * @throws WeldlineError `convert.imatrix-invalid` for anything else, such as the older `.dat` format
 */
export async function readImatrix(path: string): Promise<ImatrixData> {
  const parsed = await readGgufHeader(path).catch((error: unknown) => {
    throw invalid(path, 'is no GGUF file', error);
  });
  const { metadata: values, tensors } = parsed;
  if (values['general.type'] !== 'imatrix') throw invalid(path, 'holds no importance matrix');
  const handle = await open(path, 'r');
  try {
    const read = async (name: string): Promise<Float32Array | undefined> => {
      const info = tensors.find((tensor) => tensor.name === name);
      if (info === undefined || info.type !== F32) return undefined;
      const count = info.shape.reduce((product, length) => product * length, 1);
      const result = new Float32Array(count);
      const room = new Uint8Array(result.buffer);
      const { bytesRead } = await handle.read(room, 0, count * FLOAT_BYTES, info.offset);
      return bytesRead === count * FLOAT_BYTES ? result : undefined;
    };
    const entries = new Map<string, Float32Array>();
    for (const { name } of tensors) {
      if (!name.endsWith(SUMS)) continue;
      const tensor = name.slice(0, -SUMS.length);
      const sums = await read(name);
      const counts = await read(tensor + COUNTS);
      if (sums === undefined || counts === undefined) {
        throw invalid(path, `lacks values of ${tensor}`);
      }
      entries.set(tensor, means(sums, counts));
    }
    if (entries.size === 0) throw invalid(path, 'has no entries');
    const datasets = values['imatrix.datasets'];
    return {
      entries,
      dataset: Array.isArray(datasets) && datasets.length > 0 ? String(datasets[0]) : undefined,
      chunks: Number(values['imatrix.chunk_count'] ?? 0),
    };
  } finally {
    await handle.close();
  }
}

/** Each expert has a count of its own; one that saw nothing counts every column alike. */
function means(sums: Float32Array, counts: Float32Array): Float32Array {
  const columns = sums.length / counts.length;
  return sums.map((sum, index) => {
    const count = Math.round(counts[Math.floor(index / columns)] ?? 0);
    return count > 0 ? sum / Math.fround(count) : 1;
  });
}

function invalid(path: string, problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'convert.imatrix-invalid',
    `${path} ${problem}. Give an importance matrix as llama-imatrix writes it (a GGUF file), or ` +
      'text to make one of (imatrix: {calibration: PATH}).',
    { cause },
  );
}
