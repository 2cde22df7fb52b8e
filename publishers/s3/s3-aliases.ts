import { WeldlineError } from '../../engine/errors.ts';
import { isAnswer } from '../../remote/s3-failure.ts';
import type { AliasState, ArtefactId, MoveAlias } from '../publisher.ts';
import type { S3Objects } from './s3-objects.ts';

/** Below a target's prefix; no artefact may be called so. */
export const ALIASES_FOLDER = 'aliases';

/** A history of thousands of releases. */
const ALIAS_BYTES_MAX = 1024 * 1024;

interface FoundAlias {
  readonly state: AliasState;
  readonly etag: string;
}

export type NamedAlias = AliasState & { readonly alias: string; readonly part?: string };

/** Aliases of a target: one small object each, `<root>aliases/<alias>[.<part>].json`. */
export async function readAlias(
  objects: S3Objects,
  alias: string,
  part: string | undefined,
): Promise<FoundAlias | undefined> {
  const key = keyOf(objects, alias, part);
  const found = await objects.readText(key, ALIAS_BYTES_MAX);
  if (found === undefined) return undefined;
  return { state: parseAlias(found.text, objects.uri(key)), etag: found.etag };
}

export async function listAliases(objects: S3Objects): Promise<NamedAlias[]> {
  const prefix = `${objects.root}${ALIASES_FOLDER}/`;
  const found: NamedAlias[] = [];
  for (const key of (await objects.below(prefix)).keys()) {
    const name = key.slice(prefix.length);
    const [, alias, part] = /^([a-z][a-z0-9-]*)(?:\.([a-z0-9._-]+))?\.json$/.exec(name) ?? [];
    if (alias === undefined) continue;
    const state = (await readAlias(objects, alias, part))?.state;
    // It may have been removed since.
    if (state !== undefined) found.push({ alias, ...(part && { part }), ...state });
  }
  return found;
}

/**
 * Moves an alias by a write that depends on the state it was read in.
 * @throws WeldlineError `publish.alias-moved`
 */
export async function moveAlias(objects: S3Objects, move: MoveAlias): Promise<void> {
  const { alias, part, to, from, history } = move;
  const key = keyOf(objects, alias, part);
  const found = await readAlias(objects, alias, part);
  if (!isSameState(found?.state, from)) throw moved(objects.uri(key), alias, found?.state);
  const wanted: AliasState = { release: to, history };
  try {
    await objects.put(
      key,
      Buffer.from(`${JSON.stringify(wanted)}\n`),
      found ? { ifEtag: found.etag } : { ifAbsent: true },
    );
  } catch (error) {
    if (!isAnswer(error, 412, 404)) throw error;
    // An answer may have been lost and the write made twice: then it is as wanted.
    const now = await readAlias(objects, alias, part);
    if (!isSameState(now?.state, wanted)) throw moved(objects.uri(key), alias, now?.state);
  }
}

/** @throws WeldlineError `publish.aliased` if an alias points at the artefact */
export async function refuseAliased(
  objects: S3Objects,
  { release, part }: ArtefactId,
  location: string,
): Promise<void> {
  const aliases = await listAliases(objects);
  const names = aliases
    .filter((each) => each.release === release && each.part === part)
    .map(({ alias }) => alias);
  if (names.length === 0) return;
  throw new WeldlineError(
    'publish.aliased',
    `${location} is what ${names.join(' and ')} points at. Move the alias to another release first.`,
  );
}

function keyOf({ root }: S3Objects, alias: string, part: string | undefined): string {
  return `${root}${ALIASES_FOLDER}/${alias}${part === undefined ? '' : `.${part}`}.json`;
}

function parseAlias(text: string, location: string): AliasState {
  try {
    const { release, history } = JSON.parse(text) as Partial<Record<keyof AliasState, unknown>>;
    const isState =
      typeof release === 'string' &&
      Array.isArray(history) &&
      history.every((each) => typeof each === 'string');
    if (isState) return { release, history };
  } catch {
    // Said below.
  }
  throw new WeldlineError(
    'publish.rejected',
    `${location} is no alias of weldline. Remove it, or use another prefix.`,
  );
}

function isSameState(one: AliasState | undefined, other: AliasState | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.release === other.release && one.history.join('\n') === other.history.join('\n');
}

function moved(location: string, alias: string, now: AliasState | undefined): WeldlineError {
  const where = now === undefined ? 'is not there' : `points at ${now.release}`;
  return new WeldlineError(
    'publish.alias-moved',
    `${location}: somebody has moved the alias ${alias}, which ${where} now. Look at it and decide again.`,
  );
}
