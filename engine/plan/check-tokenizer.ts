import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';
import type { PlanPreview } from './plan.ts';

const TOKENIZER_FILE = 'tokenizer.json';

/** What of a tokenizer.json has ids: the vocabulary, by token or in order, and what was added. */
const schema = z.looseObject({
  model: z.looseObject({
    vocab: z.union([z.record(z.string(), z.number()), z.array(z.unknown())]).optional(),
  }),
  added_tokens: z.array(z.looseObject({ id: z.number() })).nullish(),
});

/**
 * Checks a changed vocabulary against the tokenizer that goes beside the weights: an id without a row
 * makes the model fail when it first occurs in a text.
 *
 * @param inputs files of the inputs, by id
 * @returns warnings
 * @throws WeldlineError `adapter.tokenizer-mismatch`, `checkpoint.config-invalid`
 */
export async function checkTokenizer(
  { configEdits, sideFiles }: PlanPreview,
  inputs: Readonly<Record<string, ModelFiles>>,
): Promise<string[]> {
  const rows = configEdits.find(({ path }) => path.at(-1) === 'vocab_size')?.value;
  if (typeof rows !== 'number') return [];
  const shipped = sideFiles.find(({ path }) => path === TOKENIZER_FILE);
  const files = shipped && inputs[shipped.input];
  if (shipped === undefined || files === undefined) {
    return [
      `The embeddings have ${rows} rows now, and no ${TOKENIZER_FILE} goes beside them: check that ` +
        'the tokenizer has no ids beyond them.',
    ];
  }
  const highest = await highestId(files);
  if (highest >= rows) {
    throw new WeldlineError(
      'adapter.tokenizer-mismatch',
      `The adapter's embeddings have ${rows} rows, but ${files.name}/${TOKENIZER_FILE} has the id ` +
        `${highest}. Put the tokenizer that the adapter was trained with beside it (with its ` +
        'tokenizer_config.json). Nothing was written.',
    );
  }
  if (shipped.input !== 'base') return [];
  return [
    `The embeddings have ${rows} rows now, and the tokenizer is the base's, whose highest id is ` +
      `${highest}: the adapter brings none (${TOKENIZER_FILE} and tokenizer_config.json), so tokens ` +
      'that were added for it are never used.',
  ];
}

async function highestId(files: ModelFiles): Promise<number> {
  const text = await readTextFile(files, TOKENIZER_FILE);
  try {
    const { model, added_tokens } = schema.parse(parseJson(text));
    const { vocab = [] } = model;
    const ids = Array.isArray(vocab) ? [vocab.length - 1] : Object.values(vocab);
    // Not spread into Math.max: there are hundreds of thousands.
    return [...ids, ...(added_tokens ?? []).map(({ id }) => id)].reduce(
      (a, b) => Math.max(a, b),
      -1,
    );
  } catch (error) {
    throw new WeldlineError(
      'checkpoint.config-invalid',
      `${files.name}/${TOKENIZER_FILE} is no tokenizer. Restore the original file.`,
      { cause: error },
    );
  }
}
