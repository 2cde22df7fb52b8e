import { WeldlineError } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';
import type { Exercise } from '../suite.ts';
import { TimeLimitError, withTimeLimit } from '../time-limit.ts';

/** Answers are short. A longer one is judged by its start, so that no pattern reads a novel. */
const JUDGED_LENGTH_MAX = 100_000;
/** A pattern takes microseconds. One that takes this long, on however busy a machine, has no end. */
const PATTERN_LIMIT_MS = 3000;
/** Places in an answer where JSON may begin. Text full of braces must not take quadratic time. */
const JSON_STARTS_MAX = 50;

/**
 * Whether an answer is what was expected; one of several where `expected` is a list.
 *
 * - `contains`: the expected text is somewhere in it, letter by letter
 * - `exact`: it is the expected text, spaces included; line ends after it do not count, since models
 *   go on to the next line
 * - `regex`: the pattern (JavaScript, Unicode) is found in it
 * - `json`: the first JSON value in it equals the expected one, whatever the order of its keys
 * - `choice`: its first word, without brackets and punctuation, is the expected option, in either case
 *
 * @throws WeldlineError `evaluate.pattern-too-slow`: the suite is the one that the release began with,
 *   so that no resume mends it
 */
export function isCorrect(answer: string, { expected, matcher, index }: Exercise): boolean {
  const text = answer.slice(0, JUDGED_LENGTH_MAX);
  const options = typeof expected === 'string' ? [expected] : expected;
  return options.some((option) => {
    switch (matcher) {
      case 'contains':
        return text.includes(option);
      case 'exact':
        return withoutLineEnds(text) === withoutLineEnds(option);
      case 'regex':
        return isFound(option, text, index);
      case 'json':
        return isSameJson(text, option);
      case 'choice':
        return firstWord(text) === firstWord(option);
      default:
        return matcher satisfies never;
    }
  });
}

/**
 * What is wrong with an expected text for its matcher, as the end of a sentence; undefined where
 * nothing is.
 */
export function expectationProblem(
  option: string,
  matcher: Exercise['matcher'],
): string | undefined {
  if (matcher === 'regex') return patternProblem(option);
  if (matcher === 'json') return jsonProblem(option);
  if (matcher === 'choice' && firstWord(option) === '') return 'holds no letter or digit to choose';
  if (option === '') return 'is empty, which every answer matches';
  return undefined;
}

function patternProblem(pattern: string): string | undefined {
  try {
    new RegExp(pattern, 'u');
    return pattern === '' ? 'is empty, which every answer matches' : undefined;
  } catch (error) {
    return `is no regular expression (${(error as Error).message})`;
  }
}

function jsonProblem(text: string): string | undefined {
  try {
    parseJson(text);
    return undefined;
  } catch (error) {
    return `is no JSON (${(error as Error).message})`;
  }
}

function withoutLineEnds(text: string): string {
  let end = text.length;
  while (text[end - 1] === '\n' || text[end - 1] === '\r') end--;
  return text.slice(0, end);
}

function isFound(pattern: string, text: string, index: number): boolean {
  try {
    return withTimeLimit(PATTERN_LIMIT_MS, () => new RegExp(pattern, 'u').test(text));
  } catch (error) {
    if (!(error instanceof TimeLimitError)) throw error;
    throw new WeldlineError(
      'evaluate.pattern-too-slow',
      `The pattern of prompt ${index} takes more than ${PATTERN_LIMIT_MS} ms to judge an answer of ` +
        `${text.length} characters: ${pattern.slice(0, 200)}. Nested repetitions such as (a+)+ do ` +
        'that; write it without them, and release again: nothing finished is done again.',
      { cause: error },
    );
  }
}

/** The first word or letter of an answer such as ` (B) because …` or `**b**`, in lower case. */
function firstWord(text: string): string {
  return /[\p{L}\p{N}]+/u.exec(text)?.[0].toLowerCase() ?? '';
}

function isSameJson(answer: string, expected: string): boolean {
  const found = firstJson(answer);
  return found !== undefined && isEqual(found.value, parseJson(expected));
}

/** The whole text as JSON, else the first object or list that is somewhere in it. */
function firstJson(text: string): { readonly value: unknown } | undefined {
  const whole = tryJson(text);
  if (whole !== undefined) return whole;
  let starts = 0;
  for (const { index } of text.matchAll(/[[{]/g)) {
    if (++starts > JSON_STARTS_MAX) return undefined;
    const end = closingIndex(text, index);
    const value = end === undefined ? undefined : tryJson(text.slice(index, end));
    if (value !== undefined) return value;
  }
  return undefined;
}

function tryJson(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: parseJson(text) };
  } catch {
    return undefined;
  }
}

/** Where the bracket at `start` is closed, or undefined. Brackets in strings do not count. */
function closingIndex(text: string, start: number): number | undefined {
  let depth = 0;
  let inString = false;
  for (let i = start; i < text.length; i++) {
    const character = text[i];
    if (inString && character === '\\') i++;
    else if (character === '"') inString = !inString;
    else if (inString) continue;
    else if (character === '{' || character === '[') depth++;
    else if ((character === '}' || character === ']') && --depth === 0) return i + 1;
  }
  return undefined;
}

function isEqual(one: unknown, other: unknown): boolean {
  if (typeof one !== 'object' || typeof other !== 'object') return one === other;
  if (one === null || other === null) return one === other;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every(
      (key) => Object.hasOwn(other, key) && isEqual(one[key as never], other[key as never]),
    )
  );
}
