import { isDeepStrictEqual } from 'node:util';
import { WeldlineError } from '../../engine/errors.ts';
import type { AliasState } from '../publisher.ts';
import { nameOf } from './hub-answers.ts';
import type { HubApi, Refs } from './hub-api.ts';

/**
 * Where it is kept which alias points at which release. The hub moves a branch without asking where
 * it was, but it takes a commit only on the parent that the committer names: so what decides is a
 * file, and the branch with an alias's name, which is for everybody else, follows it. No alias can have
 * the name of this branch, which has an underscore.
 */
const STATE_BRANCH = 'weldline_aliases';
const STATE_FILE = 'aliases.json';
/** Somebody else commits in between: another alias, another release. */
const ATTEMPTS_MAX = 8;

export type Aliases = Readonly<Record<string, AliasState>>;

interface StoredAliases {
  readonly aliases: Aliases;
  /** Of the branch; undefined where there is none yet. */
  readonly commit: string | undefined;
}

export interface AliasMove {
  readonly repo: string;
  readonly alias: string;
  readonly wanted: AliasState;
  readonly from: AliasState | undefined;
  /** Commit of the release that it shall point at. */
  readonly target: string;
  readonly signal: AbortSignal;
}

/** The aliases of a repository; none where it has none. */
export async function readAliases(
  api: HubApi,
  repo: string,
  refs: Refs | undefined,
  signal: AbortSignal,
): Promise<StoredAliases> {
  const commit = refs?.branches.get(STATE_BRANCH);
  if (commit === undefined) return { aliases: {}, commit };
  const text = await api.readFile(repo, commit, STATE_FILE, signal);
  return { aliases: text === undefined ? {} : parseAliases(text, repo), commit };
}

/**
 * Moves an alias: first in the file, by compare-and-swap, then the branch of its name.
 * @throws WeldlineError `publish.alias-moved`, and what requests throw
 */
export async function moveHubAlias(api: HubApi, move: AliasMove): Promise<void> {
  const { repo, alias, wanted, from, target, signal } = move;
  for (let attempt = 1; ; attempt += 1) {
    const refs = await api.refs(repo, signal);
    const { aliases, commit } = await readAliases(api, repo, refs, signal);
    const isDone = isDeepStrictEqual(aliases[alias], wanted);
    if (!isDone && !isDeepStrictEqual(aliases[alias], from)) throw moved(move, aliases[alias]);
    if (!isOwnBranch(alias, refs)) throw takenBranch(move, refs);
    if (isDone) break;
    if (commit === undefined) {
      await api.createBranch(repo, { name: STATE_BRANCH, at: target, overwrite: false }, signal);
      if (attempt <= ATTEMPTS_MAX) continue;
    } else if (await commitAliases(api, move, { aliases, commit })) break;
    if (attempt >= ATTEMPTS_MAX) {
      throw new WeldlineError(
        'publish.unavailable',
        `${nameOf(repo)}: the alias ${alias} cannot be moved, since others move aliases all the ` +
          'time. Try again.',
      );
    }
  }
  await followAlias(api, move);
}

/**
 * Brings the branch of an alias to where the file says, if whoever moved it was killed in between. Who
 * may only read, or finds the hub failing, leaves it to the next.
 */
export async function mendAlias(
  api: HubApi,
  { repo, alias, signal }: Pick<AliasMove, 'repo' | 'alias' | 'signal'>,
  { refs, wanted }: { readonly refs: Refs | undefined; readonly wanted: AliasState },
): Promise<void> {
  const target = refs?.tags.get(wanted.release);
  if (target === undefined || target === refs?.branches.get(alias)) return;
  if (api.access.token === undefined || !isOwnBranch(alias, refs)) return;
  await followAlias(api, { repo, alias, wanted, target, signal }).catch(() => undefined);
  signal.throwIfAborted();
}

/** @returns false if the branch of aliases has moved since */
async function commitAliases(
  api: HubApi,
  { repo, alias, wanted, signal }: AliasMove,
  { aliases, commit }: StoredAliases & { readonly commit: string },
): Promise<boolean> {
  const text = `${JSON.stringify({ ...aliases, [alias]: wanted }, null, 2)}\n`;
  const content = Buffer.from(text).toString('base64');
  const line = { key: 'file', value: { path: STATE_FILE, content, encoding: 'base64' } } as const;
  const title = `Point ${alias} at ${wanted.release}`;
  const change = { branch: STATE_BRANCH, parent: commit, title, lines: [line] };
  try {
    await api.commit(repo, change, signal);
    return true;
  } catch (error) {
    if ((error as { code?: unknown }).code === 'publish.conflict') return false;
    throw error;
  }
}

/**
 * Brings the branch to where the file says. Whoever was overtaken in between sees it, and brings the
 * branch to where the other has moved the alias.
 */
async function followAlias(
  api: HubApi,
  { repo, alias, target, wanted, signal }: Omit<AliasMove, 'from'>,
): Promise<void> {
  let [at, release] = [target, wanted.release];
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    await api.createBranch(repo, { name: alias, at, overwrite: true }, signal);
    const refs = await api.refs(repo, signal);
    const { aliases } = await readAliases(api, repo, refs, signal);
    const now = aliases[alias]?.release ?? release;
    const commit = refs?.tags.get(now);
    if (commit === undefined || (commit === at && refs?.branches.get(alias) === at)) return;
    [at, release] = [commit, now];
  }
}

/** A branch that people made, or moved to commits of theirs, is not weldline's to move. */
function isOwnBranch(alias: string, refs: Refs | undefined): boolean {
  const at = refs?.branches.get(alias);
  return at === undefined || [...(refs?.tags.values() ?? [])].includes(at);
}

function takenBranch({ repo, alias }: AliasMove, refs: Refs | undefined): WeldlineError {
  return new WeldlineError(
    'publish.alias-moved',
    `The branch ${alias} of ${nameOf(repo)} is at ${refs?.branches.get(alias)}, which is no release: ` +
      'it was made or moved by hand. Delete the branch, or take another name for the alias.',
  );
}

function moved({ repo, alias, from }: AliasMove, now: AliasState | undefined): WeldlineError {
  const where = (state: AliasState | undefined) =>
    state === undefined ? 'nothing' : `${state.release} (after ${state.history.length} others)`;
  return new WeldlineError(
    'publish.alias-moved',
    `The alias ${alias} of ${nameOf(repo)} points at ${where(now)}, and not at ${where(from)} as ` +
      'when it was decided to move it. Look at what it points at now, and decide again.',
  );
}

function parseAliases(text: string, repo: string): Aliases {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged(repo);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged(repo);
  for (const state of Object.values(value)) {
    const { release, history } = (state ?? {}) as Record<string, unknown>;
    const isHistory = Array.isArray(history) && history.every((item) => typeof item === 'string');
    if (typeof release !== 'string' || !isHistory) throw damaged(repo);
  }
  return value as Aliases;
}

function damaged(repo: string): WeldlineError {
  return new WeldlineError(
    'publish.rejected',
    `${STATE_FILE} on the branch ${STATE_BRANCH} of ${nameOf(repo)} is not what weldline wrote. ` +
      'Take back what was changed there.',
  );
}
