import { type Node, parse, parseTree } from 'jsonc-parser';
import type { ModelConfig } from '../architectures/model-config.ts';
import { assert } from '../errors.ts';
import type { ConfigEdit } from './plan.ts';
import { replicationEdits } from './replicate-layers.ts';

/** What a merge changes that config.json speaks of. */
export interface ConfigChanges {
  /** Whether a tied pair of embeddings is now two tensors. */
  readonly untied: boolean;
  /** The dtype of all tensors, if the recipe asked for one. */
  readonly dtype?: string | undefined;
  /** Rows of the embeddings, if there are others than the base's. */
  readonly vocabulary?: number | undefined;
  /** Which layers of the base the model consists of, if not of all of them once. */
  readonly layerRanges?: readonly (readonly [number, number])[] | undefined;
}

/**
 * The changes that config.json needs to agree with the tensors. Nothing of a release is quantised:
 * a base's "quantization_config" goes.
 */
export function planConfigEdits(
  config: ModelConfig,
  { untied, dtype, vocabulary, layerRanges }: ConfigChanges,
): ConfigEdit[] {
  const edits: ConfigEdit[] = [];
  const root = parse(config.text) as Record<string, unknown>;
  const textConfig = config.hasTextConfig ? (root['text_config'] as object) : {};
  if (untied) {
    edits.push({ path: ['tie_word_embeddings'], value: false });
    if (config.hasTextConfig) {
      edits.push({ path: ['text_config', 'tie_word_embeddings'], value: false });
    }
  }
  if (config.quantization !== undefined) edits.push({ path: ['quantization_config'], value: null });
  if (dtype !== undefined) {
    // transformers 5 writes "dtype", earlier versions "torch_dtype"; keep the spelling that is there.
    for (const key of ['dtype', 'torch_dtype']) {
      if (Object.hasOwn(root, key)) edits.push({ path: [key], value: dtype });
      if (Object.hasOwn(textConfig, key)) edits.push({ path: ['text_config', key], value: dtype });
    }
  }
  if (vocabulary !== undefined) {
    // A default may be left out of either; the part that speaks of the text decides.
    const inText = config.hasTextConfig;
    if (!inText || Object.hasOwn(root, 'vocab_size')) {
      edits.push({ path: ['vocab_size'], value: vocabulary });
    }
    if (inText) edits.push({ path: ['text_config', 'vocab_size'], value: vocabulary });
  }
  if (layerRanges !== undefined) edits.push(...replicationEdits(config, layerRanges));
  return edits;
}

/**
 * Applies edits to the text of a config.json. Everything else keeps its bytes: a number such as
 * 30.0 must not become 30, which transformers refuses for some keys.
 */
export function editConfigText(text: string, edits: readonly ConfigEdit[]): string {
  return edits.reduce(
    (edited, { path, value }) =>
      value === null ? removeValue(edited, path) : setValue(edited, path, value),
    text,
  );
}

/** Every member of the name goes: of equal names an earlier one would count then. */
function removeValue(text: string, path: readonly string[]): string {
  const object = objectAt(text, path);
  const members = object.children ?? [];
  const index = members.findLastIndex((member) => member.children?.[0]?.value === path.at(-1));
  const member = members[index];
  if (member === undefined) return text;
  const [before, after] = [members[index - 1], members[index + 1]];
  const memberEnd = member.offset + member.length;
  // With the comma before it; the first one with the comma after it.
  const begin = before === undefined ? member.offset : before.offset + before.length;
  const end = before === undefined ? (after?.offset ?? memberEnd) : memberEnd;
  return removeValue(text.slice(0, begin) + text.slice(end), path);
}

/** The object that has the last name of a path, or should. */
function objectAt(text: string, path: readonly string[]): Node {
  let object = parseTree(text);
  for (const name of path.slice(0, -1)) object = memberOf(object, name)?.children?.[1];
  assert(object?.type === 'object', `config.json has no object for ${path.join('.')}`);
  return object;
}

function setValue(
  text: string,
  path: readonly string[],
  value: NonNullable<ConfigEdit['value']>,
): string {
  const key = path.at(-1) ?? '';
  const object = objectAt(text, path);
  const member = memberOf(object, key)?.children?.[1];
  if (member !== undefined) {
    const end = member.offset + member.length;
    return text.slice(0, member.offset) + JSON.stringify(value) + text.slice(end);
  }
  const added = `${JSON.stringify(key)}: ${JSON.stringify(value)}`;
  const last = object.children?.at(-1);
  const at = last === undefined ? object.offset + 1 : last.offset + last.length;
  // Set off as the member before it is.
  const gap = last === undefined ? '' : `,${/\s*$/.exec(text.slice(0, last.offset))?.[0] ?? ''}`;
  return text.slice(0, at) + gap + added + text.slice(at);
}

/** A property of an object by its name; of equal names the last one counts, as for other readers. */
function memberOf(object: Node | undefined, name: string): Node | undefined {
  return object?.children?.findLast((property) => property.children?.[0]?.value === name);
}
