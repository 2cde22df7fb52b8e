import { type GgufType, ggufType } from '../../config/gguf-types.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { readCheckpoint } from '../../engine/safetensors/checkpoint.ts';
import { tryGguf } from '../../tools/gguf/try-gguf.ts';
import { openCheckpointDirectory } from '../checkpoint-directory.ts';
import type { GgufStep } from '../conversion-step.ts';
import type { ConversionFindings } from '../conversion-store.ts';
import type { ConvertOptions } from '../convert-options.ts';
import { compareMetadata, readCheckpointSettings } from './check-metadata.ts';
import { compareWithCheckpoint, compareWithSource, type Shapes } from './check-tensors.ts';
import { damaged, type GgufModel, readGguf } from './gguf-model.ts';
import { scanBlocks } from './scan-blocks.ts';

/** Any text does: what counts is that the model loads and says something. */
const TRIAL_TEXT = 'Hello';
const TRIAL_TOKENS = 8;

/**
 * Reads a converted model back: its header against the checkpoint, every weight, and one prompt.
 *
 * @param source the model that it was quantized from, or the tensors of the checkpoint
 * @throws WeldlineError `convert.check-failed`
 */
export async function checkGguf(
  directory: string,
  options: ConvertOptions<GgufStep>,
  source: GgufModel | Shapes,
): Promise<ConversionFindings> {
  const type = ggufType(options.step.type);
  options.onProgress?.({ stage: 'checking' });
  const model = await readGguf(directory);
  const settings = await readCheckpointSettings(options.merged);
  const metadata = compareMetadata(model, settings, type);
  const tensors =
    'files' in source
      ? compareWithSource(model, source)
      : compareWithCheckpoint(model, source, isTied(settings.config));
  await scanBlocks(model, {
    signal: options.signal,
    onFraction: (fraction) => options.onProgress?.({ stage: 'checking', fraction }),
  });
  options.onProgress?.({ stage: 'trying' });
  const trial = await tryModel(model, options);
  return {
    bitsPerWeight: (model.bytes * 8) / model.parameters,
    checks: [
      ...metadata,
      ...tensors.checks,
      'None of its weights is infinite or NaN.',
      ...(trial === undefined ? [] : [trial]),
    ],
    warnings: [
      ...tensors.warnings,
      ...(trial === undefined ? [`It was not tried: this llama.cpp has no llama-completion.`] : []),
      ...severityWarning(type),
    ],
  };
}

/** @returns none for a type that is known to keep what a fine-tune taught */
export function severityWarning(type: GgufType): readonly string[] {
  if (type.loss !== 'severe') return [];
  return [
    `${type.name} is known to erase what a fine-tune taught: its rounding is larger than most deltas. ` +
      'Q4_K_M is the smallest that usually keeps it.',
  ];
}

/** @throws WeldlineError `checkpoint.*`, `safetensors.*` for one that is damaged or cut off */
export async function readShapes(checkpoint: string): Promise<Shapes> {
  const { tensors } = await readCheckpoint(await openCheckpointDirectory(checkpoint));
  return new Map([...tensors].map(([name, { shape }]) => [name, shape] as const));
}

function isTied(config: Readonly<Record<string, unknown>>): boolean {
  const text = (config['text_config'] ?? {}) as Readonly<Record<string, unknown>>;
  return (config['tie_word_embeddings'] ?? text['tie_word_embeddings']) !== false;
}

async function tryModel(
  { files: [file = ''] }: GgufModel,
  { tools, threads, signal, logFile }: ConvertOptions<GgufStep>,
): Promise<string | undefined> {
  const { llamaCpp, variables } = tools;
  if (llamaCpp === undefined) return undefined;
  const request = { model: file, text: TRIAL_TEXT, count: TRIAL_TOKENS, threads };
  try {
    const result = await tryGguf({ ...request, llamaCpp, variables, signal, logFile });
    if (result === undefined) return undefined;
    if (result.tokens === 0) throw damaged(file, 'is loaded by llama.cpp, but generates nothing');
    return `llama.cpp loads it and generates text (${result.tokens} tokens).`;
  } catch (error) {
    if (!(error instanceof WeldlineError && error.code === 'tool.failed')) throw error;
    throw damaged(file, `cannot be used by llama.cpp: ${error.message}`, error);
  }
}
