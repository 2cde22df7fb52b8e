import { open } from 'node:fs/promises';
import { forEachPiece } from '../../engine/durable-files.ts';
import { damaged, type GgufModel, type GgufTensor } from './gguf-model.ts';

export interface ScanOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onFraction?: ((fraction: number) => void) | undefined;
}

/**
 * Reads every weight of a model and checks that none is infinite or NaN.
 *
 * @throws WeldlineError `convert.check-failed` naming the first that is
 */
export async function scanBlocks(
  model: Pick<GgufModel, 'files' | 'tensors' | 'bytes'>,
  options: ScanOptions = {},
): Promise<void> {
  let done = 0;
  for (const file of model.files) {
    const handle = await open(file, 'r');
    try {
      for (const tensor of model.tensors.values()) {
        if (tensor.file !== file) continue;
        await scanTensor(handle, tensor, options.signal);
        done += tensor.byteLength;
        options.onFraction?.(done / model.bytes);
      }
    } finally {
      await handle.close();
    }
  }
}

async function scanTensor(
  handle: Awaited<ReturnType<typeof open>>,
  { name, format, offset, byteLength, file, shape }: GgufTensor,
  signal: AbortSignal | undefined,
): Promise<void> {
  // A piece may end within a block, whose start is then kept for the next.
  let rest = new Uint8Array(0);
  let position = 0;
  const visit = (piece: Uint8Array): void => {
    const content = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    const found = format.findNonFinite(content);
    if (found >= 0) {
      const row = Math.floor(
        (((position + found) / format.bytes) * format.elements) / (shape.at(-1) ?? 1),
      );
      const remedy = format.name === 'F16' ? ' (F16 ends at 65504; BF16 and F32 hold more)' : '';
      throw damaged(file, `has a weight that is infinite or NaN in ${name}, row ${row}${remedy}`);
    }
    const whole = content.length - (content.length % format.bytes);
    position += whole;
    rest = content.slice(whole);
  };
  await forEachPiece(handle, { begin: offset, end: offset + byteLength }, visit, signal);
}
