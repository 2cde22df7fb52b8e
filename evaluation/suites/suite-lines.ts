import { z } from 'zod';
import { closestName } from '../../config/closest-name.ts';
import { MATCHERS } from '../../config/evaluate-schema.ts';
import type { Matcher } from '../../config/release-quality.ts';
import { canonicalJson } from '../../engine/canonical-json.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';
import { problemsOf } from '../../engine/schema-problems.ts';
import type { ChatMessage } from './chat-template.ts';
import { expectationProblem } from './matchers.ts';

/** More prompts than anyone asks a model that is about to be published. */
const LINES_MAX = 100_000;
const PROMPT_LENGTH_MAX = 1_000_000;
const MESSAGES_MAX = 1000;
const OPTIONS_MAX = 100;

const text = z
  .string()
  .max(PROMPT_LENGTH_MAX)
  .refine((value) => value.isWellFormed(), 'holds half of a surrogate pair');
const filled = text.min(1, 'is empty');

// Other keys are let through: data sets have ids and notes, and templates know other keys.
const lineSchema = z.looseObject({
  prompt: filled.optional(),
  messages: z
    .array(z.looseObject({ role: filled, content: text }))
    .min(1)
    .max(MESSAGES_MAX)
    .optional(),
  expected: z.unknown().optional(),
  matcher: z.enum(MATCHERS).optional(),
});

/** A line of a suite, checked, its messages not yet rendered. */
export interface SuiteLine {
  /** From 1. */
  readonly line: number;
  readonly prompt: string | readonly ChatMessage[];
  readonly expected: string | readonly string[];
  readonly matcher: Matcher;
}

/**
 * Parses the JSONL of a suite; empty lines do not count.
 *
 * @param path for errors
 * @param matcher for lines without one
 * @throws WeldlineError `evaluate.suite-invalid`, with `path:line` and the field
 */
export function parseSuiteLines(content: string, path: string, matcher: Matcher): SuiteLine[] {
  const lines: SuiteLine[] = [];
  for (const [index, line] of content.split('\n').entries()) {
    if (line.trim() === '') continue;
    if (lines.length === LINES_MAX) {
      throw invalidSuite(path, `has more than ${LINES_MAX} prompts; divide it`);
    }
    lines.push(parseLine(line, `${path}:${index + 1}`, index + 1, matcher));
  }
  if (lines.length === 0) throw invalidSuite(path, 'holds no prompt');
  return lines;
}

function parseLine(line: string, at: string, number: number, suiteMatcher: Matcher): SuiteLine {
  const { prompt, messages, expected, matcher = suiteMatcher } = checkKeys(line, at);
  const asked = prompt ?? messages;
  if (asked === undefined || (prompt !== undefined && messages !== undefined)) {
    throw invalidSuite(at, 'give either prompt (a text) or messages (a conversation)');
  }
  return { line: number, prompt: asked, expected: toExpected(expected, matcher, at), matcher };
}

function checkKeys(line: string, at: string): z.infer<typeof lineSchema> {
  let value: unknown;
  try {
    value = parseJson(line);
  } catch (error) {
    // Node adds a line and a column, and counts from the start of this line.
    const why = (error as Error).message.replace(/ \(line \d+ column \d+\)$/, '');
    throw invalidSuite(at, `is no JSON: ${why}. Each line is one object, {"prompt", "expected"}`);
  }
  const parsed = lineSchema.safeParse(value);
  if (!parsed.success) throw invalidSuite(at, problemsOf(parsed.error));
  // The only key that can be left out, so the only one whose misspelling would not be missed.
  const { prompt, messages, expected, matcher, ...others } = parsed.data;
  if (matcher === undefined) {
    const misspelt = Object.keys(others).find((key) => closestName(key, ['matcher']));
    if (misspelt !== undefined) throw invalidSuite(at, `${misspelt}: did you mean "matcher"`);
  }
  return { prompt, messages, expected, matcher };
}

/** A list of texts is a choice between them, also for JSON; other JSON may be written as it is. */
function toExpected(value: unknown, matcher: Matcher, at: string): string | readonly string[] {
  if (value === undefined) throw invalidSuite(at, 'expected: is missing');
  const isList = Array.isArray(value) && value.every((each) => typeof each === 'string');
  const expected = isList
    ? (value as string[])
    : matcher === 'json' && typeof value !== 'string'
      ? canonicalJson(value)
      : value;
  if (typeof expected !== 'string' && !isList) {
    throw invalidSuite(at, 'expected: write a text, or a list of texts of which one must match');
  }
  const options = typeof expected === 'string' ? [expected] : (expected as string[]);
  if (options.length === 0) throw invalidSuite(at, 'expected: the list is empty');
  if (options.length > OPTIONS_MAX) {
    throw invalidSuite(at, `expected: lists more than ${OPTIONS_MAX} texts`);
  }
  for (const option of options) {
    const problem = expectationProblem(option, matcher);
    if (problem !== undefined) throw invalidSuite(at, `expected: ${problem} (${matcher})`);
  }
  return isList ? options : (expected as string);
}

export function invalidSuite(where: string, problem: string): WeldlineError {
  return new WeldlineError('evaluate.suite-invalid', `${where} ${problem}.`);
}
