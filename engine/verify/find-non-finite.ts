import type { FileHandle } from 'node:fs/promises';
import { forEachPiece } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import type { PlannedTensor } from '../plan/plan.ts';

/** Bits of a value that are all set in Inf and NaN, and only there. */
export const EXPONENT_BY_DTYPE = { F32: 0x7f800000, BF16: 0x7f80, F16: 0x7c00 } as const;

/** @throws WeldlineError `verify.non-finite` if the written tensor holds Inf or NaN */
export async function findNonFinite(tensor: PlannedTensor, output: FileHandle): Promise<void> {
  const range = { begin: tensor.offset, end: tensor.offset + tensor.byteLength };
  const exponent = EXPONENT_BY_DTYPE[tensor.dtype as keyof typeof EXPONENT_BY_DTYPE];
  let found = false;
  // The buffer of a piece starts aligned, and its length is a multiple of every element size.
  const scan = (piece: Uint8Array): void => {
    const values =
      tensor.dtype === 'F32'
        ? new Uint32Array(piece.buffer, piece.byteOffset, piece.length / 4)
        : new Uint16Array(piece.buffer, piece.byteOffset, piece.length / 2);
    // Indexed: several times faster than an iterator over a hundred million values.
    for (let i = 0; i < values.length; i++) {
      if ((values[i]! & exponent) === exponent) found = true;
    }
  };
  await forEachPiece(output, range, scan);
  if (!found) return;
  throw new WeldlineError(
    'verify.non-finite',
    `"${tensor.name}" holds infinite values or NaN. Delete the output and merge again.`,
  );
}
