import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { GgufType } from '../../config/gguf-types.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { damaged, type GgufModel } from './gguf-model.ts';

const record = z.record(z.string(), z.unknown());

/** What a checkpoint says of itself beside its weights. */
export interface CheckpointSettings {
  readonly config: Readonly<Record<string, unknown>>;
  readonly generation: Readonly<Record<string, unknown>>;
  readonly tokenizer: Readonly<Record<string, unknown>>;
  readonly chatTemplate: string | undefined;
}

/** @throws WeldlineError `checkpoint.config-invalid` for a file that is there and is no JSON object */
export async function readCheckpointSettings(directory: string): Promise<CheckpointSettings> {
  const tokenizer = await readObject(directory, 'tokenizer_config.json');
  return {
    config: await readObject(directory, 'config.json'),
    generation: await readObject(directory, 'generation_config.json'),
    tokenizer,
    chatTemplate: await readChatTemplate(directory, tokenizer),
  };
}

/** In the order in which llama.cpp's converter looks (gguf-py's vocab.py). */
async function readChatTemplate(
  directory: string,
  tokenizer: Readonly<Record<string, unknown>>,
): Promise<string | undefined> {
  const template =
    tokenizer['chat_template'] ??
    (await readText(directory, 'chat_template.jinja')) ??
    (await readObject(directory, 'chat_template.json'))['chat_template'];
  if (!Array.isArray(template)) return typeof template === 'string' ? template : undefined;
  const named = template.find((each) => (each as { name?: unknown })?.name === 'default');
  return (named as { template?: string } | undefined)?.template;
}

/** Special tokens by what llama.cpp and what Hugging Face call them. */
const SPECIAL_TOKENS = [
  ['bos', 'bos'],
  ['eos', 'eos'],
  ['padding', 'pad'],
  ['unknown', 'unk'],
] as const;

/**
 * Compares what a file says of itself with its checkpoint.
 *
 * @returns what was found right, one sentence each
 * @throws WeldlineError `convert.check-failed`
 */
export function compareMetadata(
  { files: [file = ''], metadata, tensors }: GgufModel,
  settings: CheckpointSettings,
  type: GgufType,
): readonly string[] {
  const architecture = metadata['general.architecture'];
  if (typeof architecture !== 'string')
    throw damaged(file, 'does not say what architecture it has');
  const fileType = Number(metadata['general.file_type'] ?? -1);
  if (fileType !== type.ftype) {
    throw damaged(file, `says that its type is ${fileType}, not ${type.ftype} (${type.name})`);
  }
  const tokens = metadata['tokenizer.ggml.tokens'];
  if (!Array.isArray(tokens)) throw damaged(file, 'has no tokenizer');
  const rows = tensors.get('token_embd.weight')?.shape[0];
  if (rows !== undefined && rows !== tokens.length) {
    throw damaged(file, `has ${rows} rows of embeddings for ${tokens.length} tokens`);
  }
  if ((metadata['tokenizer.chat_template'] ?? undefined) !== settings.chatTemplate) {
    throw damaged(file, "has another chat template than the checkpoint's");
  }
  const special = SPECIAL_TOKENS.flatMap(([name, hfName]) => {
    const id = metadata[`tokenizer.ggml.${name}_token_id`];
    if (id === undefined) return [];
    requireToken(file, hfName, Number(id), tokens, settings);
    return [`${hfName} ${Number(id)}`];
  });
  return [
    `It is ${architecture} with ${tokens.length} tokens, the checkpoint's special ones ` +
      `(${special.join(', ') || 'it has none'}) and ` +
      (settings.chatTemplate === undefined ? 'no chat template.' : 'its chat template.'),
  ];
}

/** A token is the checkpoint's if any of its files that name one says so. */
function requireToken(
  file: string,
  name: string,
  id: number,
  tokens: readonly unknown[],
  { config, generation, tokenizer }: CheckpointSettings,
): void {
  const text = config['text_config'] as Readonly<Record<string, unknown>> | undefined;
  const ids = [config, text ?? {}, generation].flatMap((each) => each[`${name}_token_id`] ?? []);
  const named = tokenizer[`${name}_token`];
  const content = typeof named === 'string' ? named : (named as { content?: string })?.content;
  if (ids.includes(id) || (content !== undefined && tokens[id] === content)) return;
  if (ids.length === 0 && content === undefined) return;
  throw damaged(
    file,
    `has the ${name} token ${id} ("${String(tokens[id])}"), and the checkpoint ` +
      `${content ?? ids.join(' or ')}`,
  );
}

async function readObject(
  directory: string,
  name: string,
): Promise<Readonly<Record<string, unknown>>> {
  const text = await readText(directory, name);
  if (text === undefined) return {};
  try {
    return record.parse(JSON.parse(text));
  } catch (error) {
    throw new WeldlineError(
      'checkpoint.config-invalid',
      `${directory}/${name} is no JSON object. Restore the original file.`,
      { cause: error },
    );
  }
}

async function readText(directory: string, name: string): Promise<string | undefined> {
  return await readFile(join(directory, name), 'utf8').catch(() => undefined);
}
