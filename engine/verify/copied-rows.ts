import { WeldlineError } from '../errors.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import { elementCount } from '../safetensors/dtype.ts';
import type { ReadTensor } from './factor-rows.ts';
import type { Output } from './verify-rows.ts';

/**
 * Compares rows of a tensor that is copied with those of its source, byte for byte: a digest of the
 * output does not tell whether it is a copy of the right one.
 *
 * @param rows rows of the tensor as stored
 * @param output the file that holds `tensor`
 * @throws WeldlineError `verify.recomputation-mismatch`
 */
export async function verifyCopiedRows(
  { name, shape, from, offset, byteLength }: PlannedTensor,
  rows: readonly number[],
  read: ReadTensor,
  output: Output,
): Promise<void> {
  const rowBytes = (byteLength / elementCount(shape)) * (shape.at(-1) ?? 1);
  for (const row of rows) {
    const written = await output.read(offset + row * rowBytes, rowBytes);
    if (Buffer.compare(written, await read(from, row * rowBytes, rowBytes)) === 0) continue;
    throw new WeldlineError(
      'verify.recomputation-mismatch',
      `"${name}" row ${row} is not what ${from.input} has, and nothing changes that tensor. The ` +
        'merge is wrong; delete the output and report this.',
    );
  }
}
