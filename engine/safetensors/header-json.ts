import { visit } from 'jsonc-parser';
import type { ErrorCode, WeldlineError } from '../errors.ts';

/** Makes an error that names the file. */
export type Fail = (code: ErrorCode, problem: string) => WeldlineError;

/** What of a text from the file goes into an error. */
const QUOTED_LENGTH_MAX = 100;

export interface HeaderJson {
  readonly root: Record<string, unknown>;
  /** A character outside strings that no sound header has: `JSON.parse` reads 1.0 and 1e0 as 1. */
  readonly strange: string | undefined;
}

/**
 * Parses the text of a header, and sees what `JSON.parse` passes over: duplicate keys and numbers
 * that are not written as natural ones.
 *
 * @throws WeldlineError `safetensors.header-bad-start`, `.header-not-utf8`, `.header-not-json`,
 *   `.duplicate-key`
 */
export function parseHeaderJson(json: Uint8Array, fail: Fail): HeaderJson {
  if (json[0] !== 0x7b) {
    throw fail('safetensors.header-bad-start', "the header does not start with '{'.");
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    throw fail('safetensors.header-not-utf8', 'the header is not valid UTF-8.');
  }
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message.slice(0, 120) : 'unreadable';
    throw fail('safetensors.header-not-json', `the header is not JSON (${reason}).`);
  }
  const object = root as Record<string, unknown>;
  const { colons, strange } = lookOutsideStrings(text);
  if (countMembers(object) !== colons) {
    throw fail(
      'safetensors.duplicate-key',
      `the header has the key ${firstDuplicate(text)} twice; which of the two is meant cannot ` +
        'be known. Write the file again.',
    );
  }
  return { root: object, strange };
}

/** Members of all objects in a parsed value. Iterative: input decides the depth. */
function countMembers(root: unknown): number {
  let count = 0;
  const stack: unknown[] = [root];
  while (stack.length > 0) {
    const value = stack.pop();
    if (typeof value !== 'object' || value === null) continue;
    const children = Object.values(value);
    if (!Array.isArray(value)) count += children.length;
    for (const child of children) if (typeof child === 'object') stack.push(child);
  }
  return count;
}

/**
 * Members of all objects in valid JSON text are the colons outside strings. `JSON.parse` keeps the
 * last of two equal keys, so fewer members than colons means a duplicate.
 */
function lookOutsideStrings(text: string): { colons: number; strange: string | undefined } {
  let colons = 0;
  let strange: string | undefined;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (inString) {
      if (code === 0x5c) i++;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x3a) colons++;
    else if (code === 0x2d || code === 0x2e || code === 0x45 || code === 0x65) strange ??= text[i];
  }
  return { colons, strange };
}

/** Names the duplicate for the error; called only when there is one. */
function firstDuplicate(text: string): string {
  const open: Set<string>[] = [];
  let found: string | undefined;
  try {
    visit(text, {
      onObjectBegin: () => void open.push(new Set()),
      onObjectEnd: () => void open.pop(),
      onObjectProperty: (name) => {
        const keys = open.at(-1);
        if (keys?.has(name)) found ??= name;
        keys?.add(name);
      },
    });
  } catch {
    // Nested so deep that the visitor ran out of stack: the error stands without the name.
  }
  return found === undefined ? '(deeply nested)' : quote(found);
}

/** A value of the header for an error, cut short. */
export function quote(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > QUOTED_LENGTH_MAX ? `${text.slice(0, QUOTED_LENGTH_MAX)}…` : text;
}
