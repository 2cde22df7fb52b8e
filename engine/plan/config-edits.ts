import { applyEdits, modify, parse } from 'jsonc-parser';
import type { ModelConfig } from '../architectures/model-config.ts';
import type { ConfigEdit } from './plan.ts';

/**
 * The changes that config.json needs to agree with the tensors.
 *
 * @param untied whether a tied pair of embeddings is now two tensors
 * @param dtype the dtype of all tensors, if the recipe asked for one
 */
export function planConfigEdits(
  config: ModelConfig,
  untied: boolean,
  dtype: string | undefined,
): ConfigEdit[] {
  const edits: ConfigEdit[] = [];
  const root = parse(config.text) as Record<string, unknown>;
  const textConfig = config.hasTextConfig ? (root['text_config'] as object) : {};
  if (untied) {
    edits.push({ path: ['tie_word_embeddings'], value: false });
    if (config.hasTextConfig) {
      edits.push({ path: ['text_config', 'tie_word_embeddings'], value: false });
    }
  }
  if (dtype !== undefined) {
    // transformers 5 writes "dtype", earlier versions "torch_dtype"; keep the spelling that is there.
    for (const key of ['dtype', 'torch_dtype']) {
      if (Object.hasOwn(root, key)) edits.push({ path: [key], value: dtype });
      if (Object.hasOwn(textConfig, key)) edits.push({ path: ['text_config', key], value: dtype });
    }
  }
  return edits;
}

/**
 * Applies edits to the text of a config.json. Everything else keeps its bytes: a number such as
 * 30.0 must not become 30, which transformers refuses for some keys.
 */
export function editConfigText(text: string, edits: readonly ConfigEdit[]): string {
  let edited = text;
  for (const { path, value } of edits) {
    const formattingOptions = { insertSpaces: true, tabSize: 2, eol: '\n' };
    edited = applyEdits(edited, modify(edited, [...path], value, { formattingOptions }));
  }
  return edited;
}
