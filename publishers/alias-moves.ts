import { WeldlineError } from '../engine/errors.ts';
import { type ArtefactId, artefactNameOf, type Publisher } from './publisher.ts';

/** Nobody goes back further, and targets keep it in places of limited size. */
const ALIAS_HISTORY_MAX = 50;

/** What became of one alias at one target. */
export interface AliasChange {
  readonly alias: string;
  readonly part?: string;
  /** The release that it pointed at; absent where there was none. */
  readonly from?: string;
  readonly to: string;
  /** False where it pointed there already. */
  readonly isMoved: boolean;
}

/**
 * Points an alias at an artefact. Idempotent.
 * @throws WeldlineError `publish.not-found`, `publish.alias-moved`; what the target throws
 */
export async function promote(
  publisher: Publisher,
  { release, part }: ArtefactId,
  alias: string,
  signal: AbortSignal,
): Promise<AliasChange> {
  const state = await publisher.readAlias(alias, part, signal);
  const change = { alias, ...(part && { part }), to: release };
  if (state?.release === release) return { ...change, from: release, isMoved: false };
  const before = state === undefined ? [] : [...state.history, state.release];
  const history = before.slice(-ALIAS_HISTORY_MAX);
  await publisher.moveAlias({ alias, part, to: release, from: state, history }, signal);
  return { ...change, ...(state && { from: state.release }), isMoved: true };
}

/**
 * Points an alias at the release that it pointed at before, if it points at one that shall be left.
 * Idempotent: an alias that points elsewhere stays where it is.
 *
 * @param isLeft which releases shall be left
 * @throws WeldlineError `publish.not-found` if there was none before, or it is gone or pruned;
 *   `publish.alias-moved`; what the target throws
 */
export async function rollBack(
  publisher: Publisher,
  { alias, part }: { readonly alias: string; readonly part?: string | undefined },
  isLeft: (release: string) => boolean,
  signal: AbortSignal,
): Promise<AliasChange> {
  const named = { alias, ...(part && { part }) };
  const state = await publisher.readAlias(alias, part, signal);
  if (state === undefined) throw impossible(publisher, named, 'there is no such alias');
  const { release: from, history } = state;
  if (!isLeft(from)) return { ...named, from, to: from, isMoved: false };
  const to = history.at(-1);
  if (to === undefined) {
    throw impossible(publisher, named, `it points at ${from} and pointed at nothing before`);
  }
  const id = { release: to, ...(part && { part }) };
  const found = await publisher.find(id, signal);
  if (found === undefined || found.isPruned) {
    const what = found === undefined ? 'is not published any more' : 'was pruned of its weights';
    const where = `${artefactNameOf(id)}, where it pointed before ${from}, ${what}`;
    throw impossible(publisher, named, where);
  }
  await publisher.moveAlias(
    { alias, part, to, from: state, history: history.slice(0, -1) },
    signal,
  );
  return { ...named, from, to, isMoved: true };
}

function impossible(
  { name }: Publisher,
  { alias, part }: { readonly alias: string; readonly part?: string },
  why: string,
): WeldlineError {
  const what = part === undefined ? alias : `${alias} of ${part}`;
  return new WeldlineError(
    'publish.not-found',
    `The alias ${what} at ${name} cannot be rolled back: ${why}. Point it at another release with ` +
      'weldline promote.',
  );
}
