import { randomBytes } from 'node:crypto';
import {
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
} from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, temporaryBeside, writeFileDurably } from '../../engine/durable-files.ts';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import { type AliasState, artefactNameOf, type MoveAlias } from '../publisher.ts';
import { toPublishError } from './directory-errors.ts';
import { absentAs } from './read-artefact.ts';

/**
 * Aliases of a directory: `<target>/<alias>[-<part>]` is a symbolic link to an artefact beside it,
 * and `<target>/.weldline/aliases/<alias>[-<part>]/<number>.json` says where it was moved, one file
 * for each move. The last of them is what holds; the link follows it.
 *
 * Whoever moves an alias makes the next file by a hard link, which fails where it exists: of two who
 * move it at once, on whatever machines, one finds that it was moved. No lock can be left behind.
 */
export type Alias = AliasState & { readonly alias: string; readonly part?: string };

interface AliasName {
  readonly alias: string;
  readonly part?: string | undefined;
}

const FILE = /^(\d{6,})\.json$/;

export async function readAlias(target: string, name: AliasName): Promise<AliasState | undefined> {
  const linkName = linkNameOf(name);
  const latest = await readLatest(target, linkName);
  if (latest === undefined || !isOf(latest.alias, name)) return undefined;
  // Whoever moved it may have been killed before the link; who may only read leaves it as it is.
  await followRecord(target, linkName, join(target, linkName)).catch(() => undefined);
  const { release, history } = latest.alias;
  return { release, history };
}

export async function listAliases(target: string): Promise<readonly Alias[]> {
  const names = await absentAs([], readdir(recordsOf(target)));
  const all = await Promise.all(names.sort().map((name) => readLatest(target, name)));
  return all.flatMap((latest) => (latest === undefined ? [] : [latest.alias]));
}

/**
 * Moves an alias to an artefact, of which the caller knows that it is published. Killed after the
 * record was made, the link follows as soon as somebody who may write looks at the alias.
 *
 * @throws WeldlineError `publish.alias-moved`, `publish.conflict` if something else has the name,
 *   `publish.not-writable`, `publish.rejected` where there are no links
 */
export async function moveAlias(target: string, move: MoveAlias): Promise<void> {
  const { alias, part, to, history, from } = move;
  const linkName = linkNameOf(move);
  const path = join(target, linkName);
  try {
    await requireLinkOrNothing(path);
    const latest = await readLatest(target, linkName);
    if (latest !== undefined && !isOf(latest.alias, move)) {
      throw taken(path, `as the alias ${aliasText(latest.alias)}`);
    }
    if (!isSameState(latest?.alias, from)) throw moved(move, path, latest?.alias);
    const next: Alias = { alias, ...(part && { part }), release: to, history };
    if (!isSameState(latest?.alias, next)) {
      await addRecord(target, linkName, (latest?.number ?? 0) + 1, next, () => moved(move, path));
    }
    await followRecord(target, linkName, path);
  } catch (error) {
    throw toPublishError(error, path);
  }
}

async function addRecord(
  target: string,
  linkName: string,
  number: number,
  record: Alias,
  whenTaken: () => WeldlineError,
): Promise<void> {
  const directory = join(recordsOf(target), linkName);
  await mkdir(directory, { recursive: true });
  const path = join(directory, `${String(number).padStart(6, '0')}.json`);
  const draft = temporaryBeside(path);
  try {
    await writeFileDurably(draft, `${JSON.stringify(record, null, 2)}\n`);
    await link(draft, path);
    await syncDirectory(directory);
  } catch (error) {
    throw systemErrorCode(error) === 'EEXIST' ? whenTaken() : error;
  } finally {
    await rm(draft, { force: true });
  }
}

/** Lets the link point where the last record says, whoever made that meanwhile. */
async function followRecord(target: string, linkName: string, path: string): Promise<void> {
  for (;;) {
    const latest = await readLatest(target, linkName);
    if (latest === undefined) return;
    const artefact = artefactNameOf(latest.alias);
    if ((await absentAs(undefined, readlink(path))) !== artefact) {
      // Among the records, where nobody sees it if it is left behind.
      const hex = randomBytes(6).toString('hex');
      const draft = join(recordsOf(target), linkName, `.${hex}.link`);
      await makeLink(artefact, draft);
      await rename(draft, path);
      await syncDirectory(target);
    }
    // Somebody may have moved it on before the rename; then theirs is behind, and is put right.
    if ((await readLatest(target, linkName))?.number === latest.number) return;
  }
}

async function makeLink(artefact: string, path: string): Promise<void> {
  try {
    await symlink(artefact, path, 'dir');
  } catch (error) {
    if (!['EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP'].includes(systemErrorCode(error) ?? ''))
      throw error;
    throw new WeldlineError(
      'publish.rejected',
      `${path} cannot be made: an alias of a directory is a symbolic link, and this file system ` +
        'has none or this user may not make one. Take "aliases" out of this target.',
      { cause: error },
    );
  }
}

async function requireLinkOrNothing(path: string): Promise<void> {
  const stats = await absentAs(undefined, lstat(path));
  if (stats?.isSymbolicLink() === false) throw taken(path, 'and is no alias');
}

interface Latest {
  readonly number: number;
  readonly alias: Alias;
}

async function readLatest(target: string, linkName: string): Promise<Latest | undefined> {
  const directory = join(recordsOf(target), linkName);
  const names = await absentAs([], readdir(directory));
  const number = Math.max(0, ...names.map((name) => Number(FILE.exec(name)?.[1] ?? 0)));
  if (number === 0) return undefined;
  const path = join(directory, `${String(number).padStart(6, '0')}.json`);
  const alias = parseAlias(await readFile(path, 'utf8'));
  if (alias !== undefined && linkNameOf(alias) === linkName) return { number, alias };
  throw new WeldlineError(
    'publish.rejected',
    `${path} says where an alias points and cannot be read. Remove it to go back to the one before.`,
  );
}

function parseAlias(text: string): Alias | undefined {
  try {
    const { alias, part, release, history } = JSON.parse(text) as Record<string, unknown>;
    const names = [
      alias,
      part ?? '-',
      release,
      ...(Array.isArray(history) ? history : [undefined]),
    ];
    if (!names.every((name) => typeof name === 'string' && /^[\w.-]+$/.test(name)))
      return undefined;
    return { alias, ...(part !== undefined && { part }), release, history } as Alias;
  } catch {
    return undefined;
  }
}

function recordsOf(target: string): string {
  return join(target, '.weldline', 'aliases');
}

function linkNameOf({ alias, part }: AliasName): string {
  return part === undefined ? alias : `${alias}-${part}`;
}

function isOf(found: AliasName, { alias, part }: AliasName): boolean {
  return found.alias === alias && found.part === part;
}

function isSameState(one: AliasState | undefined, other: AliasState | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.release === other.release && one.history.join('\n') === other.history.join('\n');
}

function taken(path: string, how: string): WeldlineError {
  return new WeldlineError(
    'publish.conflict',
    `${path} exists already, ${how}. Name the alias otherwise, or remove what is there.`,
  );
}

function moved(move: MoveAlias, path: string, now?: AliasState): WeldlineError {
  const where = now === undefined ? 'elsewhere' : `at ${now.release}`;
  return new WeldlineError(
    'publish.alias-moved',
    `The alias ${aliasText(move)} (${path}) was moved meanwhile and is ${where} now. Look again, ` +
      'and move it if that is still right.',
  );
}

function aliasText({ alias, part }: AliasName): string {
  return part === undefined ? alias : `${alias} of ${part}`;
}
