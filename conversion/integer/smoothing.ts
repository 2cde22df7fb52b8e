import { basename, dirname } from 'node:path';
import { z } from 'zod';
import { assert } from '../../engine/errors.ts';
import { readHeader } from '../../engine/safetensors/header.ts';
import { openCheckpointDirectory } from '../checkpoint-directory.ts';

/** What AWQ did to a module's weight before it was quantised: `W[i, j] · columns[j] / rows[i]`. */
export interface Smoothing {
  /** Of the columns, because the module before was scaled down. */
  readonly columns?: Float64Array;
  /** Of the last rows, of the bias, and of a norm's vector. */
  readonly rows?: Float64Array;
  /** 1 for a norm that multiplies with 1 + weight. */
  readonly offset: number;
}

const stepsSchema = z.array(
  z.object({
    from: z.string(),
    to: z.array(z.string()),
    offset: z.union([z.literal(0), z.literal(1)]),
  }),
);

/**
 * Reads what tools/python/quantize.py recorded of AWQ's scales, by module. Scales of a module that
 * was scaled more than once are multiplied.
 *
 * @throws WeldlineError `safetensors.*`
 */
export async function readSmoothing(path: string): Promise<ReadonlyMap<string, Smoothing>> {
  const smoothing = new Map<string, Smoothing>();
  const files = await openCheckpointDirectory(dirname(path));
  const source = await files.open(basename(path));
  try {
    const { tensors, metadata } = await readHeader(source);
    const steps = stepsSchema.parse(JSON.parse(metadata['steps'] ?? '[]'));
    for (const [index, { from, to, offset }] of steps.entries()) {
      const tensor = tensors.find(({ name }) => name === `scales.${index}`);
      assert(tensor !== undefined, `the record of AWQ has no scales.${index}`);
      const bytes = await source.read(tensor.offset, tensor.byteLength);
      const scales = decode(bytes);
      for (const name of to) {
        const known = smoothing.get(name);
        smoothing.set(name, { offset: 0, ...known, columns: multiply(known?.columns, scales) });
      }
      const known = smoothing.get(from);
      smoothing.set(from, { ...known, rows: multiply(known?.rows, scales), offset });
    }
  } finally {
    await source.close();
  }
  return smoothing;
}

function decode(bytes: Uint8Array): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(i * 4, true));
}

function multiply(known: Float64Array | undefined, scales: Float64Array): Float64Array {
  return known === undefined ? scales : scales.map((scale, i) => scale * (known[i] ?? 1));
}
