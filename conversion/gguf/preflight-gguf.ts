import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type GgufType, ggufType } from '../../config/gguf-types.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { type ImatrixData, readImatrix } from '../../tools/gguf/read-imatrix.ts';
import type { GgufStep } from '../conversion-step.ts';
import type { ConversionTools, ModelFacts } from '../convert-options.ts';
import { severityWarning } from './check-gguf.ts';
import { type InspectedModel, inspectModel } from './inspect-model.ts';

/** One of these holds the vocabulary. */
const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer.model', 'vocab.json', 'spiece.model'];
/** Weights in a block of most quantized types; a row must be whole blocks. */
const LARGE_BLOCK = 256;
/** Types with blocks of 32, which nearly every row is a multiple of. */
const SMALL_BLOCK_TYPE = /^(Q[458]_[01]|IQ4_NL|MXFP4_MOE)$/;

export interface GgufPreflightOptions {
  readonly model: ModelFacts;
  readonly tools: ConversionTools;
  readonly retention?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly logFile?: string | undefined;
}

/**
 * @returns warnings
 * @throws WeldlineError `convert.tokenizer-missing`, `convert.vocabulary-mismatch`,
 *   `convert.imatrix-invalid`, and what `inspectModel` throws
 */
export async function preflightGguf(
  steps: readonly GgufStep[],
  options: GgufPreflightOptions,
): Promise<readonly string[]> {
  if (steps.length === 0) return [];
  const { model, retention } = options;
  requireTokenizer(model);
  requireVocabularyRows(model);
  await requireCalibration(steps);
  const matrices = await readImatrices(steps);
  const inspected = await inspectModel(model, options);
  for (const [file, matrix] of matrices) requireSameModel(file, matrix, inspected);
  return steps.flatMap((step) => {
    const type = ggufType(step.type);
    const found = [
      ...severityWarning(type),
      ...retentionWarning(type, retention),
      ...blockWarning(type, inspected),
      ...expertWarning(type, inspected),
    ];
    return found.map((warning) => `${step.id}: ${warning}`);
  });
}

function requireTokenizer({ directory }: ModelFacts): void {
  if (TOKENIZER_FILES.some((name) => existsSync(join(directory, name)))) return;
  throw new WeldlineError(
    'convert.tokenizer-missing',
    `${directory} has no tokenizer (${TOKENIZER_FILES.join(', ')}), and a GGUF file holds one. Add ` +
      'the files, or leave gguf out of the recipe.',
  );
}

/**
 * llama.cpp takes the number of tokens from `vocab_size` and fills up with unused ones, and then
 * wants a row of the embeddings for each: rows beyond the tokenizer are fine, rows beyond
 * `vocab_size` are not.
 */
function requireVocabularyRows({ config, tensors }: ModelFacts): void {
  const text = (config['text_config'] ?? {}) as Readonly<Record<string, unknown>>;
  const size = config['vocab_size'] ?? text['vocab_size'];
  const rows = tensors.get('model.embed_tokens.weight')?.[0];
  if (typeof size !== 'number' || rows === undefined || rows === size) return;
  throw new WeldlineError(
    'convert.vocabulary-mismatch',
    `The embeddings have ${rows} rows, and config.json says that vocab_size is ${size}: llama.cpp ` +
      'would refuse the GGUF file. Correct vocab_size in the base.',
  );
}

async function requireCalibration(steps: readonly GgufStep[]): Promise<void> {
  for (const { imatrix } of steps) {
    if (imatrix === undefined) continue;
    const path = 'file' in imatrix ? imatrix.file : imatrix.calibration;
    const size = await stat(path).then(
      (stats) => (stats.isFile() ? stats.size : 0),
      () => 0,
    );
    if (size > 0) continue;
    throw new WeldlineError(
      'convert.imatrix-invalid',
      `imatrix: ${path} is not there, or is empty. Give the path of ` +
        ('file' in imatrix ? 'an importance matrix.' : 'text of what the model will be used for.'),
    );
  }
}

async function readImatrices(
  steps: readonly GgufStep[],
): Promise<ReadonlyMap<string, ImatrixData>> {
  const matrices = new Map<string, ImatrixData>();
  for (const { imatrix } of steps) {
    if (imatrix === undefined || !('file' in imatrix) || matrices.has(imatrix.file)) continue;
    matrices.set(imatrix.file, await readImatrix(imatrix.file));
  }
  return matrices;
}

/**
 * A matrix of another model has other widths, and llama.cpp finds it out after an hour.
 * @throws WeldlineError `convert.imatrix-invalid`
 */
export function requireSameModel(
  file: string,
  { entries }: ImatrixData,
  { tensors }: Pick<InspectedModel, 'tensors'>,
): void {
  for (const [name, values] of entries) {
    const columns = tensors.get(name)?.at(-1);
    if (columns !== undefined && values.length % columns === 0) continue;
    throw new WeldlineError(
      'convert.imatrix-invalid',
      `${file} is the importance matrix of another model: it has ${values.length} values for ` +
        `${name}, and this model has ${columns ?? 'no such tensor'}. Make one of this model ` +
        '(imatrix: {calibration: PATH}).',
    );
  }
}

function retentionWarning(type: GgufType, retention: number | undefined): readonly string[] {
  if (type.loss !== 'severe' || retention === undefined) return [];
  return [
    `Of the adapter's delta ${(retention * 100).toFixed(1)} % survives the rounding to 16 bits, which ` +
      `is far finer than ${type.name}. Evaluate this file before anybody relies on it.`,
  ];
}

function blockWarning(type: GgufType, { tensors }: InspectedModel): readonly string[] {
  if (type.loss === 'lossless' || SMALL_BLOCK_TYPE.test(type.name)) return [];
  const matrices = [...tensors].filter(([, shape]) => shape.length > 1);
  const narrow = matrices.filter(([, shape]) => (shape.at(-1) ?? 0) % LARGE_BLOCK !== 0);
  if (narrow.length === 0) return [];
  return [
    `${narrow.length} of ${matrices.length} matrices have rows that are no multiple of ` +
      `${LARGE_BLOCK}: llama.cpp gives them a larger type than ${type.name} has, and the file is ` +
      'larger than its name says.',
  ];
}

function expertWarning(type: GgufType, { tensors }: InspectedModel): readonly string[] {
  if (type.name !== 'MXFP4_MOE' || [...tensors.keys()].some((name) => /_exps\./.test(name))) {
    return [];
  }
  return ['MXFP4_MOE is for experts, and this model has none: the file will be the same as Q8_0.'];
}
