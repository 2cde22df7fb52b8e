import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { toReadError } from '../../engine/disk-errors.ts';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';
import { TimeLimitError, withTimeLimit } from '../time-limit.ts';

/** Tokenizer configurations list added tokens, a thousand at most; templates have some pages. */
const FILE_BYTES_MAX = 32 << 20;
const TEMPLATE_LENGTH_MAX = 1 << 20;
/** Rendering takes a millisecond. A template that takes this long, on however busy a machine, loops. */
const RENDER_LIMIT_MS = 3000;
/** As in the sandbox of Jinja itself (`MAX_RANGE`). */
const RANGE_LENGTH_MAX = 100_000;
const PROMPT_LENGTH_MAX = 10_000_000;

/** Names by which templates know special tokens; transformers' `SPECIAL_TOKENS_ATTRIBUTES`. */
const TOKEN_NAMES = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
];

/**
 * What `strftime_now` tells templates that write the date into the prompt. Always the same day: a
 * prompt must not change overnight. It is the one that Llama 3's template has for itself.
 */
const DATE: Readonly<Record<string, string>> = {
  ...{ '%Y': '2024', '%y': '24', '%m': '07', '%B': 'July', '%b': 'Jul', '%d': '26', '%-d': '26' },
  ...{ '%A': 'Friday', '%a': 'Fri', '%j': '208', '%F': '2024-07-26', '%H': '00', '%I': '12' },
  ...{ '%M': '00', '%S': '00', '%p': 'AM', '%%': '%' },
};

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** How a checkpoint writes a conversation as text. */
export interface ChatTemplate {
  /** Jinja, as the checkpoint has it. */
  readonly source: string;
  /** Where it is, for errors. */
  readonly path: string;
  /** `bos_token` and the others that the tokenizer's configuration has. */
  readonly tokens: Readonly<Record<string, string>>;
}

/**
 * Reads the chat template next to a tokenizer: `chat_template.jinja`, else `chat_template` in
 * `tokenizer_config.json` (a text, or a list of named ones of which `default` is meant), as
 * transformers does.
 *
 * @returns undefined where there is none
 * @throws WeldlineError `evaluate.template-failed`, `disk.read-failed`
 */
export async function readChatTemplate(directory: string): Promise<ChatTemplate | undefined> {
  const path = join(directory, 'tokenizer_config.json');
  const text = await readIfThere(path);
  const config = text === undefined ? {} : parseConfig(text, path);
  const tokens = tokensOf(config);
  const filePath = join(directory, 'chat_template.jinja');
  const file = await readIfThere(filePath);
  const source = file ?? sourceOf(config['chat_template'], path);
  if (source === undefined) return undefined;
  const template = { source, path: file === undefined ? path : filePath, tokens };
  if (source.length > TEMPLATE_LENGTH_MAX) throw failed(template, 'is larger than any template');
  return template;
}

/**
 * The text that a model sees of a conversation, up to where its answer begins; equal to
 * `apply_chat_template(messages, tokenize=False, add_generation_prompt=True)` of transformers.
 *
 * @param addGenerationPrompt false leaves out what begins the answer
 * @throws WeldlineError `evaluate.template-failed`, with what a template says that refuses
 */
export function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  addGenerationPrompt = true,
): string {
  try {
    const text = withTimeLimit(RENDER_LIMIT_MS, () =>
      render(template, messages, addGenerationPrompt),
    );
    if (text.length <= PROMPT_LENGTH_MAX) return text;
  } catch (error) {
    const took = error instanceof TimeLimitError;
    throw failed(template, took ? error.message : `says: ${(error as Error).message}`, error);
  }
  throw failed(template, `makes more than ${PROMPT_LENGTH_MAX} characters of a conversation`);
}

function render(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  addGenerationPrompt: boolean,
): string {
  const options = { lstrip_blocks: true, trim_blocks: true };
  const program = parse(tokenize(withoutGenerationMarks(template.source), options));
  const environment = new Environment();
  const variables = {
    ...{ true: true, false: false, none: null, True: true, False: false, None: null },
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    range,
    strftime_now: (format: string) => format.replace(/%-?./g, (part) => DATE[part] ?? part),
    ...template.tokens,
    ...{ messages, tools: null, documents: null, add_generation_prompt: addGenerationPrompt },
  };
  for (const [name, value] of Object.entries(variables)) environment.set(name, value);
  return String(new Interpreter(environment).run(program).value);
}

/**
 * `{% generation %}` marks for training what the assistant says, and changes no text. The library
 * does not know it.
 */
function withoutGenerationMarks(source: string): string {
  return source
    .replace(/\{%([-+]?)\s*generation\s*([-+]?)%\}/g, '{%$1 if true $2%}')
    .replace(/\{%([-+]?)\s*endgeneration\s*([-+]?)%\}/g, '{%$1 endif $2%}');
}

/** Python's `range`. */
function range(first: number, end?: number, step = 1): number[] {
  const [from, to] = end === undefined ? [0, first] : [first, end];
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= RANGE_LENGTH_MAX)) throw new Error(`range() of ${length} numbers is too long`);
  return Array.from({ length }, (_, at) => from + at * step);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    if ((await stat(path)).size > FILE_BYTES_MAX) {
      throw new WeldlineError('evaluate.template-failed', `${path} is too large to be one.`);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw toReadError(error, path);
  }
}

function parseConfig(text: string, path: string): Readonly<Record<string, unknown>> {
  try {
    const value = parseJson(text);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
    throw new SyntaxError('expected an object');
  } catch (error) {
    const why = (error as Error).message;
    throw new WeldlineError('evaluate.template-failed', `${path} cannot be parsed: ${why}`, {
      cause: error,
    });
  }
}

function tokensOf(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of TOKEN_NAMES) {
    const value = config[name];
    const content = (value as { content?: unknown } | null | undefined)?.content;
    const token = typeof value === 'string' ? value : content;
    if (typeof token === 'string') tokens[name] = token;
  }
  return tokens;
}

function sourceOf(value: unknown, path: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string') return value;
  const named = Array.isArray(value) ? (value as { name?: unknown; template?: unknown }[]) : [];
  const chosen = named.find((each) => each?.name === 'default')?.template;
  if (typeof chosen === 'string') return chosen;
  throw new WeldlineError(
    'evaluate.template-failed',
    `${path} has chat templates, and none of them is called "default"` +
      ` (${named.map((each) => String(each?.name)).join(', ') || typeof value}).`,
  );
}

function failed(template: ChatTemplate, problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'evaluate.template-failed',
    `The chat template in ${template.path} ${problem.slice(0, 500)}. Write prompts as they are ` +
      '("prompt" instead of "messages"), or mend the template.',
    { cause },
  );
}
