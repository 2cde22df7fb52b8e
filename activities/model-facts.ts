import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelFacts } from '../conversion/convert-options.ts';
import { MODEL_CONFIG_FILE } from '../engine/architectures/model-config.ts';
import { assert } from '../engine/errors.ts';
import { type ModelFiles, readTextFile } from '../engine/model-files.ts';
import { editConfigText } from '../engine/plan/config-edits.ts';
import type { PlanPreview } from '../engine/plan/plan.ts';

/** A tokenizer has tens of megabytes; a side file of gigabytes is none that tells of a model. */
const SIDE_FILE_BYTES_MAX = 256 * 1024 * 1024;

/**
 * Writes what the merged model will have beside its weights into a directory, so that tokenizer,
 * template and configuration can be looked at before a weight is read.
 *
 * @param models the base and the adapters, by their input ids
 */
export async function writeModelFacts(
  plan: PlanPreview,
  models: Readonly<Record<string, ModelFiles>>,
  directory: string,
): Promise<ModelFacts> {
  await mkdir(directory, { recursive: true });
  let config = '{}';
  for (const { input, path, size } of plan.sideFiles) {
    if (size > SIDE_FILE_BYTES_MAX) continue;
    const files = models[input];
    assert(files !== undefined, `the side file ${path} comes from nowhere`);
    if (path === MODEL_CONFIG_FILE) {
      config = editConfigText(await readTextFile(files, path), plan.configEdits);
      await writeFile(join(directory, path), config);
      continue;
    }
    const source = await files.open(path);
    try {
      await writeFile(join(directory, path), await source.read(0, source.size));
    } finally {
      await source.close();
    }
  }
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  return {
    config: JSON.parse(config) as ModelFacts['config'],
    directory,
    tensors: new Map(tensors.map(({ name, shape }) => [name, shape])),
  };
}
