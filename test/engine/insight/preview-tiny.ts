import type { InputModels } from '../../../engine/insight/tensor-reader.ts';
import type { MergeOptions, PlannedTensor, PlanPreview } from '../../../engine/plan/plan.ts';
import { previewMerge } from '../../../engine/plan/plan-merge.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { adapterFiles, baseFiles, type TinyModel } from '../../doubles/tiny-model.ts';

export interface PreviewedMerge {
  readonly plan: PlanPreview;
  readonly models: InputModels;
  readonly tensors: readonly PlannedTensor[];
}

/** A merge of models in memory, as far as headers tell; adapters are called a, b, c and so on. */
export async function previewTiny(
  base: TinyModel,
  adapters: readonly TinyModel[],
  options: MergeOptions = {},
): Promise<PreviewedMerge> {
  const inputs = adapters.map((adapter, index) => {
    const id = String.fromCharCode(97 + index);
    return { id, ...memoryFiles(id, adapterFiles(adapter)) };
  });
  const { files } = memoryFiles('base', baseFiles(base));
  const plan = await previewMerge(files, inputs, options);
  return {
    plan,
    models: { base: files, ...Object.fromEntries(inputs.map((input) => [input.id, input.files])) },
    tensors: plan.shards.flatMap((shard) => shard.tensors),
  };
}
