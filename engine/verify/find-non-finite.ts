import type { FileHandle } from 'node:fs/promises';
import { forEachPiece } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import type { MergeDtype } from '../safetensors/dtype.ts';
import { scanValues } from '../safetensors/scan-values.ts';

/** @throws WeldlineError `verify.non-finite` if the written tensor holds Inf or NaN */
export async function findNonFinite(tensor: PlannedTensor, output: FileHandle): Promise<void> {
  const range = { begin: tensor.offset, end: tensor.offset + tensor.byteLength };
  let found = false;
  await forEachPiece(output, range, (piece) => {
    found ||= scanValues(piece, tensor.dtype as MergeDtype).nonFinite;
  });
  if (!found) return;
  throw new WeldlineError(
    'verify.non-finite',
    `"${tensor.name}" holds infinite values or NaN. Delete the output and merge again.`,
  );
}
