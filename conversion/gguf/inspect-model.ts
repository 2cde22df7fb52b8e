import { mkdir, mkdtemp, open, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { type ErrorCode, WeldlineError } from '../../engine/errors.ts';
import { forPeople } from '../../tools/program-failure.ts';
import type { ModelFacts } from '../convert-options.ts';
import { type ConverterOptions, HF_CONVERTER, runConverter } from './run-converter.ts';

/** What llama.cpp's converter would make of a model. */
export interface InspectedModel {
  readonly architecture: string;
  /** Tokens in the vocabulary, with those that only fill rows. */
  readonly tokens: number;
  /** Name in GGUF → shape, rows first. */
  readonly tensors: ReadonlyMap<string, readonly number[]>;
}

const answer = z.union([
  z.object({ error: z.enum(['architecture', 'tokenizer', 'model']), message: z.string() }),
  z.object({
    architecture: z.string(),
    tokens: z.number(),
    tensors: z.record(z.string(), z.array(z.number())),
  }),
]);

/** Bytes of a weight; which 16-bit type it is, is all the same where no value is read. */
const WEIGHT_BYTES = 2;
/** What the converter says of a refusal; what is longer is a listing. */
const SAID_LENGTH_MAX = 500;
const WEIGHT_FILE = /\.(safetensors|bin|pt|pth|gguf)$|\.index\.json$/;

/**
 * Runs llama.cpp's converter over a model whose weights are not there yet: over a checkpoint with its
 * names and shapes and no bytes. So the converter itself says, before a merge, whether it knows the
 * architecture, the tokenizer and every tensor.
 *
 * @throws WeldlineError `convert.unsupported-architecture`, `convert.unsupported-tokenizer`,
 *   `convert.unsupported-model` with what the converter says; `tool.*`
 */
export async function inspectModel(
  model: ModelFacts,
  options: Pick<ConverterOptions, 'tools' | 'signal' | 'logFile'>,
): Promise<InspectedModel> {
  const root = await mkdtemp(join(tmpdir(), 'weldline-inspect-'));
  try {
    const directory = join(root, 'model');
    await makeHollowCheckpoint(directory, model);
    const args = [directory, '--outfile', join(root, 'none.gguf'), '--outtype', 'f16'];
    const line = await runConverter({ ...options, script: HF_CONVERTER, args, inspect: true });
    const result = parseAnswer(line);
    if ('error' in result) throw refused(result.error, result.message, model);
    return { ...result, tensors: new Map(Object.entries(result.tensors)) };
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function parseAnswer(line: string): z.infer<typeof answer> {
  try {
    return answer.parse(JSON.parse(line));
  } catch (error) {
    throw new WeldlineError(
      'tool.failed',
      `llama.cpp's converter was asked what it would make of the model, and printed ` +
        `"${forPeople(line.slice(0, SAID_LENGTH_MAX))}". weldline doctor says which Python and which ` +
        'llama.cpp are used; correct what is wrong with them and resume.',
      { cause: error },
    );
  }
}

async function makeHollowCheckpoint(directory: string, model: ModelFacts): Promise<void> {
  await mkdir(directory);
  for (const name of await readdir(model.directory)) {
    if (name === 'config.json' || name.startsWith('.') || WEIGHT_FILE.test(name)) continue;
    await symlink(resolve(model.directory, name), join(directory, name));
  }
  await writeFile(join(directory, 'config.json'), JSON.stringify(model.config));
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of model.tensors) {
    const bytes = shape.reduce((product, length) => product * length, WEIGHT_BYTES);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = await open(join(directory, 'model.safetensors'), 'w');
  try {
    await file.writeFile(Buffer.concat([length, text]));
    // A hole: it takes no room on the disk.
    await file.truncate(length.length + text.length + offset);
  } finally {
    await file.close();
  }
}

type Refusal = 'architecture' | 'tokenizer' | 'model';

const REFUSAL_CODES = {
  architecture: 'convert.unsupported-architecture',
  tokenizer: 'convert.unsupported-tokenizer',
  model: 'convert.unsupported-model',
} as const satisfies Record<Refusal, ErrorCode>;

function refused(refusal: Refusal, message: string, model: ModelFacts): WeldlineError {
  const said = message.trim().replace(/\s+/g, ' ').slice(0, SAID_LENGTH_MAX);
  const architectures = [model.config['architectures']].flat().join(', ') || 'unknown';
  const what = {
    architecture: `the architecture ${architectures}`,
    tokenizer: /trust_remote_code/.test(said)
      ? 'a tokenizer that is code, which weldline does not execute'
      : `the tokenizer in ${model.directory}`,
    model: `this model (${architectures})`,
  }[refusal];
  return new WeldlineError(
    REFUSAL_CODES[refusal],
    `llama.cpp's converter does not take ${what}: "${said}". Leave gguf out of the recipe, or use a ` +
      'llama.cpp that knows it (WELDLINE_LLAMA_CPP). Nothing was merged.',
  );
}
