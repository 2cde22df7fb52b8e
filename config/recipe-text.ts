import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
} from 'yaml';
import { WeldlineError } from '../engine/errors.ts';

/** A recipe is a page of text; the limit bounds what the YAML reader may be asked to do. */
export const RECIPE_BYTES_MAX = 256 * 1024;
/** Enough for any hand-written recipe; a bomb of aliases within aliases passes it at once. */
const ALIASES_MAX = 50;
const CORE_TAG = /^tag:yaml\.org,2002:(str|int|float|bool|null|map|seq)$/;

export interface Position {
  line: number;
  column: number;
}

/** A recipe's text together with where everything in it stands. */
export interface RecipeText {
  file: string;
  /** The plain value: maps, lists, strings, numbers, booleans, null. */
  value: unknown;
  /** Where the value at `path` stands, or the nearest value around it that exists. */
  positionOf(path: readonly PropertyKey[]): Position;
  /** Where the key that leads to `path` stands, or else the position of its value. */
  keyPositionOf(path: readonly PropertyKey[]): Position;
  /** The value as it is written, when it is a plain scalar. */
  sourceOf(path: readonly PropertyKey[]): string | undefined;
}

/**
 * Reads YAML 1.2 (hence JSON) and keeps the positions.
 *
 * @param file the name that errors show
 * @throws WeldlineError `recipe.syntax` with `file:line:column` and the offending line
 */
export function readRecipeText(text: string, file: string): RecipeText {
  const lineCounter = new LineCounter();
  const fail = (offset: number, problem: string) => {
    throw syntaxError(text, file, toPosition(lineCounter, offset), problem);
  };
  const document = parseDocument(text, { lineCounter, prettyErrors: false, version: '1.2' });
  const [fault] = document.errors.toSorted((a, b) => a.pos[0] - b.pos[0]);
  if (fault !== undefined) fail(fault.pos[0], explain(fault.code, fault.message));

  let aliasCount = 0;
  visit(document, {
    Node(_, node) {
      if (!isAlias(node) && node.tag !== undefined && !CORE_TAG.test(node.tag)) {
        fail(offsetOf(node) ?? 0, `the tag ${node.tag} has no meaning in a recipe; remove it`);
      }
    },
    Alias(_, alias) {
      aliasCount += 1;
      const offset = offsetOf(alias) ?? 0;
      if (alias.resolve(document) === undefined) {
        fail(offset, `the alias *${alias.source} has no anchor before it`);
      }
      if (aliasCount > ALIASES_MAX) fail(offset, `more than ${ALIASES_MAX} aliases`);
    },
  });
  return located(document, lineCounter, file, text);
}

function located(
  document: Document,
  lineCounter: LineCounter,
  file: string,
  text: string,
): RecipeText {
  const position = (offset: number | undefined) => toPosition(lineCounter, offset ?? 0);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (error) {
    throw syntaxError(text, file, position(0), (error as Error).message);
  }
  return {
    file,
    value,
    positionOf: (path) => position(walk(document, path).valueOffset),
    keyPositionOf: (path) => position(walk(document, path).keyOffset),
    sourceOf: (path) => {
      const { node } = walk(document, path);
      return isScalar(node) && node.type === 'PLAIN' ? node.source : undefined;
    },
  };
}

interface Found {
  node: unknown;
  keyOffset: number | undefined;
  valueOffset: number | undefined;
}

/** Follows `path` as far as it exists. */
function walk(document: Document, path: readonly PropertyKey[]): Found {
  let node: unknown = document.contents;
  let valueOffset = offsetOf(node);
  let keyOffset = valueOffset;
  for (const segment of path) {
    if (isAlias(node)) node = node.resolve(document);
    const pair = isMap(node)
      ? node.items.find((item) => isScalar(item.key) && String(item.key.value) === segment)
      : undefined;
    const child = pair?.value ?? (isSeq(node) ? node.items[Number(segment)] : undefined);
    if (pair === undefined && child === undefined)
      return { node: undefined, keyOffset, valueOffset };
    keyOffset = offsetOf(pair?.key) ?? offsetOf(child) ?? keyOffset;
    // An empty value has no place of its own: its key is where a person looks.
    valueOffset = isEmpty(child) ? keyOffset : (offsetOf(child) ?? keyOffset);
    node = child;
  }
  return { node, keyOffset, valueOffset };
}

function isEmpty(node: unknown): boolean {
  return isScalar(node) && node.value === null && (node.source ?? '') === '';
}

function offsetOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}

function toPosition(lineCounter: LineCounter, offset: number): Position {
  const { line, col } = lineCounter.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

function explain(code: string, message: string): string {
  if (code === 'DUPLICATE_KEY') return 'this key is given twice in the same mapping; keep one';
  if (code === 'MULTIPLE_DOCS') return 'a recipe is one document; remove the second "---" part';
  if (code === 'RESOURCE_EXHAUSTION') return 'nested too deeply';
  return message.charAt(0).toLowerCase() + message.slice(1);
}

function syntaxError(text: string, file: string, at: Position, problem: string): WeldlineError {
  const line = (text.split(/\r?\n/)[at.line - 1] ?? '').slice(0, 200);
  const caret = `${line.slice(0, at.column - 1).replace(/[^\t]/g, ' ')}^`;
  return new WeldlineError(
    'recipe.syntax',
    `${file}:${at.line}:${at.column}: ${problem}\n  ${line}\n  ${caret}`,
    { details: { file, line: at.line, column: at.column } },
  );
}
