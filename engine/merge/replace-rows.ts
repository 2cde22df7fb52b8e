import { castElements } from '../../kernels/index.ts';
import type { PlannedTensor, TokenRows } from '../plan/plan.ts';
import { rowBytes } from './arena-sizes.ts';
import type { InputFiles } from './input-files.ts';
import { kernelDtypes } from './tensor-work.ts';
import type { ByteRange } from './windows.ts';

/**
 * Puts adapters' rows in the place of a tensor's, as far as they lie in the window. They are few
 * (the tokens that were trained), so nothing is gained by the kernel.
 *
 * @param bytes the window
 * @returns the first row with values that are not finite, and how many
 */
export function replaceRows(
  tensor: PlannedTensor,
  window: ByteRange,
  bytes: Uint8Array,
  files: InputFiles,
): { readonly row: number; readonly nonFinite: number } | undefined {
  for (const rows of tensor.tokens ?? []) {
    const bad = replaceRowsOf(rows, tensor, window, bytes, files);
    if (bad !== undefined) return bad;
  }
  return undefined;
}

function replaceRowsOf(
  tokens: TokenRows,
  tensor: PlannedTensor,
  window: ByteRange,
  bytes: Uint8Array,
  files: InputFiles,
): ReturnType<typeof replaceRows> {
  const stored = new Uint8Array(rowBytes(tokens.from));
  const length = tensor.byteLength / (tensor.shape[0] ?? 1);
  const { dtypeIn, dtypeOut } = kernelDtypes({ ...tensor, from: tokens.from });
  for (const [place, index] of tokens.indices.entries()) {
    const begin = tensor.offset + index * length - window.begin;
    if (begin + length <= 0 || begin >= bytes.length) continue;
    files.read(tokens.from, place * stored.length, stored);
    const row = castElements(stored, dtypeIn, dtypeOut);
    if (row.nonFinite > 0) return { row: index, nonFinite: row.nonFinite };
    const from = Math.max(0, -begin);
    const to = Math.min(length, bytes.length - begin);
    bytes.set(row.bytes.subarray(from, to), begin + from);
  }
  return undefined;
}
