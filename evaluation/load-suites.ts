import { readFile, stat } from 'node:fs/promises';
import type { RecipeSuite } from '../config/release-quality.ts';
import { digestOf, sha256Of } from '../engine/canonical-json.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { mapInTurns } from './map-in-turns.ts';
import type { Exercise, Suite } from './suite.ts';
import { type ChatTemplate, readChatTemplate, renderChat } from './suites/chat-template.ts';
import { invalidSuite, parseSuiteLines, type SuiteLine } from './suites/suite-lines.ts';

/** Read as a whole; a hundred thousand prompts of a page each. */
const FILE_BYTES_MAX = 256 << 20;
/** Part of the digest: what is judged by other rules is another suite. */
const FORMAT = 1;
const NAMED_MAX = 3;

/**
 * Reads suites and renders their conversations, once: every candidate sees the same text.
 *
 * @param tokenizerDirectory of the checkpoint whose chat template is used; only read if a suite has
 *   `messages`
 * @throws WeldlineError `evaluate.suite-invalid` (with `file:line` and the field),
 *   `evaluate.template-failed`, `source.not-found`, `disk.read-failed`
 */
export async function loadSuites(
  suites: readonly RecipeSuite[],
  tokenizerDirectory: string,
): Promise<readonly Suite[]> {
  let template: Promise<ChatTemplate | undefined> | undefined;
  const getTemplate = () => {
    template ??= readChatTemplate(tokenizerDirectory);
    return template;
  };
  const loaded: Suite[] = [];
  for (const suite of suites) loaded.push(await loadSuite(suite, getTemplate));
  return loaded;
}

async function loadSuite(
  { id, data, text: textPath, matcher, newTokensMax }: RecipeSuite,
  getTemplate: () => Promise<ChatTemplate | undefined>,
): Promise<Suite> {
  const lines = data === undefined ? [] : parseSuiteLines(await readText(data), data, matcher);
  const isChat = lines.some(({ prompt }) => typeof prompt !== 'string');
  const template = isChat ? await getTemplate() : undefined;
  if (isChat && template === undefined) {
    throw invalidSuite(
      `${data}`,
      'has messages, and the base model has no chat template to write them with ' +
        '(chat_template.jinja, or chat_template in tokenizer_config.json); give prompts',
    );
  }
  const exercises = await mapInTurns(lines, (line, index) => toExercise(line, index, template));
  const text = textPath === undefined ? undefined : await readText(textPath);
  if (text?.trim() === '') throw invalidSuite(`${textPath}`, 'is empty');
  const decides = { format: FORMAT, exercises, newTokensMax };
  const warnings = duplicateWarnings(lines, exercises, `${data}`);
  return {
    id,
    digest: digestOf({ ...decides, ...(text === undefined ? {} : { text: sha256Of(text) }) }),
    exercises,
    ...(text === undefined ? {} : { text }),
    newTokensMax,
    ...(warnings.length === 0 ? {} : { warnings }),
  };
}

function toExercise(line: SuiteLine, index: number, template: ChatTemplate | undefined): Exercise {
  const { prompt, expected, matcher } = line;
  const common = { index, expected, matcher };
  return typeof prompt === 'string'
    ? { ...common, prompt, addSpecialTokens: true }
    : { ...common, prompt: renderChat(template!, prompt), addSpecialTokens: false };
}

/** Prompts that are there twice count twice, and say nothing the second time. */
function duplicateWarnings(
  lines: readonly SuiteLine[],
  exercises: readonly Exercise[],
  path: string,
): string[] {
  const firstLine = new Map<string, number>();
  const repeated: string[] = [];
  for (const [index, { prompt }] of exercises.entries()) {
    const line = lines[index]!.line;
    const first = firstLine.get(prompt);
    if (first === undefined) firstLine.set(prompt, line);
    else repeated.push(`line ${line} repeats line ${first}`);
  }
  if (repeated.length === 0) return [];
  const named = repeated.slice(0, NAMED_MAX).join(', ');
  const more = repeated.length > NAMED_MAX ? `, and ${repeated.length - NAMED_MAX} more` : '';
  return [
    `${path} asks the same prompt more than once (${named}${more}): these count as further prompts ` +
      'and make the score look surer than it is.',
  ];
}

async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    if ((await stat(path)).size > FILE_BYTES_MAX) {
      throw invalidSuite(path, `is larger than ${FILE_BYTES_MAX >> 20} MiB; take a part of it`);
    }
    bytes = await readFile(path);
  } catch (error) {
    throw toReadError(error, path);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalidSuite(path, 'is not text in UTF-8; convert it (iconv -t UTF-8)');
  }
}
