import { findVocabularyTensors, type TiedEmbeddings } from '../architectures/tied-embeddings.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import type { Adapter } from './adapter.ts';

/**
 * Finds out whether the adapter was trained with another vocabulary: tokens were added before the
 * training, or padding cut off. Then all that has a row for each token must have the new number.
 *
 * A tied pair was one tensor when it was resized. Where the adapter has it once, as a weight that was
 * not trained or one that was trained for both sides, it is added to `replacements` for the other side.
 *
 * @param replacements whole tensors, by names on disk; their shapes beside the vocabulary are the
 *   base's
 * @returns the new number of rows, or undefined if it is the base's
 * @throws WeldlineError `adapter.shape-mismatch`
 */
export function bindVocabulary(
  adapter: Adapter,
  checkpoint: Checkpoint,
  tied: TiedEmbeddings | undefined,
  replacements: Map<string, TensorEntry>,
): number | undefined {
  const { embeddings, heads, headBiases } = findVocabularyTensors(checkpoint);
  const pair = tied === undefined ? [] : [tied.embedding, tied.head];
  const names = [...new Set([...embeddings, ...pair, ...heads, ...headBiases])];
  const rowsOf = (name: string): number | undefined =>
    (replacements.get(name) ?? checkpoint.tensors.get(name))?.shape[0];
  const isResized = (name: string): boolean => {
    const before = checkpoint.tensors.get(name === tied?.head ? tied.embedding : name);
    return replacements.has(name) && before?.shape[0] !== rowsOf(name);
  };
  const resized = names.find(isResized);
  if (resized === undefined) return undefined;
  if (tied !== undefined) share(adapter, tied, replacements);
  const rows = rowsOf(resized);
  const left = names.find((name) => rowsOf(name) !== rows);
  if (left === undefined) return rows;
  throw new WeldlineError(
    'adapter.shape-mismatch',
    `Adapter "${adapter.id}" has a vocabulary of ${rows} rows: it replaces "${resized}" of shape ` +
      `[${checkpoint.tensors.get(resized)?.shape.join(', ')}] by one of shape ` +
      `[${replacements.get(resized)?.shape.join(', ')}]. But "${left}" has ` +
      `${rowsOf(left) ?? 'no'} rows. Save the adapter with both (save_embedding_layers=True), or ` +
      'check that this is the base it was trained on. Nothing was written.',
  );
}

/** Gives the one side's weight to the other, where it is that of both. */
function share(
  adapter: Adapter,
  { embedding, head }: TiedEmbeddings,
  replacements: Map<string, TensorEntry>,
): void {
  for (const [side, other] of [
    [embedding, head],
    [head, embedding],
  ] as const) {
    const entry = replacements.get(side);
    if (entry === undefined || replacements.has(other)) continue;
    const isBoth = adapter.config.ensureWeightTying || !isTrainedInFull(adapter, side);
    if (isBoth) replacements.set(other, entry);
  }
}

/** Whether a whole tensor was trained, and is not the weight that others were trained on. */
export function isTrainedInFull({ config }: Adapter, tensor: string): boolean {
  const module = tensor.replace(/\.weight$/, '');
  return config.modulesToSave.some((name) => module === name || module.endsWith(`.${name}`));
}
