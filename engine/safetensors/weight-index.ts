import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';

export const INDEX_FILE = 'model.safetensors.index.json';

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * Reads the index of a sharded checkpoint: tensor name → file name.
 * @throws WeldlineError `checkpoint.index-*`
 */
export async function readIndex(files: ModelFiles): Promise<ReadonlyMap<string, string>> {
  const where = `${files.name}/${INDEX_FILE}`;
  const text = await readTextFile(files, INDEX_FILE);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    throw new WeldlineError(
      'checkpoint.index-not-json',
      `${where} is not JSON. Download it again.`,
      { cause: error },
    );
  }
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success || Object.keys(parsed.data.weight_map).length === 0) {
    throw new WeldlineError(
      'checkpoint.index-invalid',
      `${where} has no "weight_map" from tensor names to file names. Download it again.`,
    );
  }
  const weightMap = new Map(Object.entries(parsed.data.weight_map));
  for (const file of new Set(weightMap.values())) {
    checkFileName(file, where);
    if (!files.sizes.has(file)) {
      throw new WeldlineError(
        'checkpoint.index-missing-file',
        `${where} names ${file}, which is not there. The checkpoint is incomplete; download it ` +
          'again.',
      );
    }
  }
  return weightMap;
}

/** Files of a checkpoint stand beside their index; any other path is an attempt to leave it. */
function checkFileName(file: string, where: string): void {
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$/.test(file)) {
    throw new WeldlineError(
      'checkpoint.index-unsafe-path',
      `${where} names the file ${JSON.stringify(file.slice(0, 200))}, which is not a plain ` +
        'safetensors file name. Do not use this checkpoint unless you know why.',
    );
  }
}

/**
 * The text of an index, laid out as the hub's own tools write it.
 * @param fileByTensor tensor name → file name
 * @param totalBytes size of all tensors together, in bytes
 */
export function formatIndex(fileByTensor: ReadonlyMap<string, string>, totalBytes: number): string {
  const weightMap = Object.fromEntries([...fileByTensor].sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${JSON.stringify({ metadata: { total_size: totalBytes }, weight_map: weightMap }, null, 2)}\n`;
}
