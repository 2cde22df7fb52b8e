import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { z } from 'zod';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';

/** A thousand times what is used of it; a whole training set is a mistake, and would fill the memory. */
const CALIBRATION_BYTES_MAX = 256 * 1024 * 1024;
const QUOTE_LENGTH_MAX = 80;

const JSON_LINES = /\.(jsonl|ndjson|json)$/i;

/** What weights are quantised for: texts as the model will meet them. */
export interface Calibration {
  /** SHA-256 of the file. */
  readonly digest: string;
  readonly samples: readonly CalibrationSample[];
  /** The first line that needs the model's chat template. */
  readonly firstChatLine?: number;
}

/** One text, one conversation, or a long text to be cut into stretches; `line` is its place. */
export type CalibrationSample =
  | { readonly line: number; readonly text: string }
  | { readonly line: number; readonly messages: readonly Message[] }
  | { readonly line: number; readonly stretch: string };

interface Message {
  readonly role: string;
  readonly content: string;
}

const text = z.string().min(1);
const message = z.looseObject({ role: text, content: z.string() });
/** A suite's lines have `expected`, sometimes several answers; training data has `completion`. */
const answer = z.union([z.string(), z.array(z.string()).min(1)]);

const line = z.union([
  z.looseObject({ text }),
  z.looseObject({ messages: z.array(message).min(1), expected: answer.optional() }),
  z.looseObject({ prompt: text, expected: answer }),
  z.looseObject({ prompt: text, completion: z.string() }),
]);

const EXPECTED =
  '{"text"}, {"messages": [{"role", "content"}, …]}, {"prompt", "expected"} or {"prompt", "completion"}';

/**
 * Reads calibration data: JSON Lines (`.jsonl`, `.ndjson`, `.json`), or any other text, which
 * becomes stretches of the sequence length. Prompts are joined with their answers, since that is
 * what the model sees; of several answers the first is taken.
 *
 * @throws WeldlineError `convert.bad-calibration`, with the line where it is one's fault
 */
export async function readCalibration(path: string): Promise<Calibration> {
  const bytes = await readBytes(path);
  const digest = createHash('sha256').update(bytes).digest('hex');
  const content = decode(path, bytes);
  if (!JSON_LINES.test(path)) {
    if (content.trim() === '') throw bad(path, 'holds no text');
    return { digest, samples: [{ line: 1, stretch: content }] };
  }
  const samples = content
    .split('\n')
    .flatMap((each, index) => (each.trim() === '' ? [] : [parseLine(path, each, index + 1)]));
  if (samples.length === 0) throw bad(path, 'holds no sample');
  const firstChatLine = samples.find((sample) => 'messages' in sample)?.line;
  return { digest, samples, ...(firstChatLine === undefined ? {} : { firstChatLine }) };
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > CALIBRATION_BYTES_MAX) {
      throw bad(
        path,
        `has ${size} bytes, and at most ${CALIBRATION_BYTES_MAX} are read; some hundred samples are ` +
          'all that is used, so give a part of it',
      );
    }
    return await readFile(path);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw bad(path, code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})`, error);
  }
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    const content = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (!content.includes('\0')) return content;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  throw bad(path, 'is not UTF-8 text');
}

function parseLine(path: string, content: string, number: number): CalibrationSample {
  const quoted = content.slice(0, QUOTE_LENGTH_MAX);
  let value: unknown;
  try {
    value = parseJson(content);
  } catch (error) {
    throw bad(`${path}:${number}`, `is not JSON (${quoted})`, error);
  }
  const parsed = line.safeParse(value);
  if (!parsed.success) {
    throw bad(`${path}:${number}`, `is none of ${EXPECTED}, with text in each (${quoted})`);
  }
  return toSample(parsed.data, number);
}

function toSample(value: z.infer<typeof line>, number: number): CalibrationSample {
  if ('text' in value) return { line: number, text: value.text as string };
  if ('messages' in value) {
    const messages = (value.messages as Message[]).map(({ role, content }) => ({ role, content }));
    const expected = value.expected as z.infer<typeof answer> | undefined;
    if (expected === undefined) return { line: number, messages };
    return {
      line: number,
      messages: [...messages, { role: 'assistant', content: firstOf(expected) }],
    };
  }
  const { prompt } = value;
  const follows = 'expected' in value ? firstOf(value.expected as string) : value.completion;
  return { line: number, text: `${prompt}${follows}` };
}

function firstOf(value: z.infer<typeof answer>): string {
  return typeof value === 'string' ? value : (value[0] ?? '');
}

function bad(where: string, problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'convert.bad-calibration',
    `${where} ${problem}. Calibration data is JSON Lines of ${EXPECTED}, or plain text. Correct it ` +
      'and resume.',
    { cause },
  );
}
