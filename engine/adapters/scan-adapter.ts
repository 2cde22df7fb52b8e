import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { EXPONENT_BY_DTYPE } from '../verify/find-non-finite.ts';
import type { Adapter } from './adapter.ts';

/** Each piece is a new buffer: small ones keep what waits for the garbage collector small. */
const PIECE_BYTES = 512 * 1024;

/**
 * Reads the values of an adapter once, before anything is written.
 *
 * @param source its weight file
 * @returns warnings: modules whose B is all zeros change nothing
 * @throws WeldlineError `adapter.non-finite` naming the first tensor that holds Inf or NaN
 */
export async function scanAdapter(adapter: Adapter, source: ByteSource): Promise<string[]> {
  const idle: string[] = [];
  for (const { module, a, b } of adapter.pairs) {
    await scanTensor(source, a);
    if (await scanTensor(source, b)) idle.push(module);
  }
  for (const tensor of adapter.replacements.values()) await scanTensor(source, tensor);
  if (idle.length === 0) return [];
  if (idle.length === adapter.pairs.length && adapter.replacements.size === 0) {
    return [
      `Adapter "${adapter.id}" changes nothing: every lora_B is zero, as before training. Check ` +
        'that this is the trained adapter.',
    ];
  }
  return [
    `Adapter "${adapter.id}" does not change ${idle.length} of its ${adapter.pairs.length} ` +
      `modules: their lora_B is zero (${idle.slice(0, 3).join(', ')}).`,
  ];
}

/** @returns whether all values are zero */
async function scanTensor(source: ByteSource, tensor: TensorEntry): Promise<boolean> {
  let allZero = true;
  for (let done = 0; done < tensor.byteLength; done += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, tensor.byteLength - done);
    const bytes = await source.read(tensor.offset + done, length);
    const { nonFinite, zero } = scanPiece(bytes, tensor);
    allZero &&= zero;
    if (nonFinite) {
      throw new WeldlineError(
        'adapter.non-finite',
        `${source.name}: tensor "${tensor.name}" holds infinite values or NaN. The training ` +
          'diverged; use an earlier checkpoint. Nothing was written.',
      );
    }
  }
  return allZero;
}

function scanPiece(bytes: Uint8Array, tensor: TensorEntry): { nonFinite: boolean; zero: boolean } {
  // A typed array needs an aligned start, which a piece of a file need not have.
  const { buffer, byteOffset, byteLength } =
    bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  const isF32 = tensor.dtype === 'F32';
  const values = isF32
    ? new Uint32Array(buffer, byteOffset, byteLength / 4)
    : new Uint16Array(buffer, byteOffset, byteLength / 2);
  const exponent = EXPONENT_BY_DTYPE[tensor.dtype as keyof typeof EXPONENT_BY_DTYPE];
  const magnitude = isF32 ? 0x7fffffff : 0x7fff;
  let nonFinite = false;
  let seen = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    nonFinite ||= (value & exponent) === exponent;
    seen |= value & magnitude;
  }
  return { nonFinite, zero: seen === 0 };
}
