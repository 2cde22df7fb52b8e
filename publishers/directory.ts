import { randomBytes } from 'node:crypto';
import { access, constants, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { toWriteError } from '../engine/disk-errors.ts';
import { copyFileDurably, syncDirectory, writeFileDurably } from '../engine/durable-files.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';

/** Names the merge inside it; written last. A directory without it is not a release. */
const RELEASE_FILE = 'release.json';

export interface PublishToDirectoryOptions {
  /** Directory of what is published: a sealed checkpoint, a conversion. */
  readonly source: string;
  /** Its files, beside the manifest. */
  readonly files: readonly string[];
  /** Name of its manifest, which is copied after them. */
  readonly manifestFile: string;
  /** The directory that releases are published into. */
  readonly target: string;
  readonly artefact: string;
  readonly manifestDigest: string;
  /** Files that are added, by name; `release.json` among them. */
  readonly texts: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly onFile: (path: string) => void;
}

/**
 * Publishes files as `<target>/<artefact>`. It appears whole or not at all: files are copied
 * under a temporary name, which is then renamed.
 *
 * Idempotent: the same files under the same name is left as it is. Attempts may overlap: each
 * has a directory of its own, and a new one takes the directories of earlier ones away from them.
 *
 * @throws WeldlineError `publish.conflict` if something else has the name,
 *   `publish.not-writable`, `disk.full`
 */
export async function publishToDirectory(
  options: PublishToDirectoryOptions,
): Promise<{ readonly location: string; readonly existed: boolean }> {
  const { target, artefact, manifestDigest } = options;
  const location = join(target, artefact);
  const existed = await isPublished(location, manifestDigest);
  const partial = join(target, `.${artefact}.${randomBytes(6).toString('hex')}.partial`);
  try {
    await removeLeftovers(target, artefact);
    if (existed) return { location, existed };
    await mkdir(partial, { recursive: true });
    for (const path of [...options.files, options.manifestFile]) {
      options.signal.throwIfAborted();
      options.onFile(path);
      // Not a link: what people do to a published file must not reach the workspace.
      await copyFileDurably(join(options.source, path), join(partial, path));
    }
    const { [RELEASE_FILE]: release = '', ...others } = options.texts;
    for (const [path, text] of Object.entries(others)) {
      await writeFileDurably(join(partial, path), text);
    }
    await writeFileDurably(join(partial, RELEASE_FILE), release);
    await rename(partial, location);
    await syncDirectory(target);
  } catch (error) {
    await rm(partial, { recursive: true, force: true }).catch(() => undefined);
    if (options.signal.aborted) throw error;
    const taken = ['EEXIST', 'ENOTEMPTY'].includes(systemErrorCode(error) ?? '');
    if (taken && (await isPublished(location, manifestDigest))) return { location, existed: true };
    throw toPublishError(error, location);
  }
  return { location, existed: false };
}

/**
 * Removes what attempts left that were killed. An attempt that is only thought dead may still be
 * at work: the rename takes its directory from under it at once, so that it cannot publish one that
 * is half removed.
 */
async function removeLeftovers(target: string, artefact: string): Promise<void> {
  const names = await readdir(target).catch((error: unknown) => {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    if (!name.startsWith(`.${artefact}.`)) continue;
    const [, attempt, kind] =
      /^([0-9a-f]{12})\.(partial|left)$/.exec(name.slice(artefact.length + 2)) ?? [];
    if (attempt === undefined) continue;
    const left = join(target, `.${artefact}.${attempt}.left`);
    if (kind === 'partial') await rename(join(target, name), left).catch(() => undefined);
    await rm(left, { recursive: true, force: true });
  }
}

/**
 * Checks that releases can be published here, before hours are spent on one.
 * @throws WeldlineError `publish.not-writable`
 */
export async function checkTarget(target: string): Promise<void> {
  try {
    // With the dot, a file in the place of the directory is an error too.
    await access(`${target}/.`, constants.W_OK);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' && dirname(target) !== target) {
      return checkTarget(dirname(target));
    }
    throw toPublishError(error, target);
  }
}

/**
 * Checks that a version is not taken by a release of another plan, before that is merged.
 * @throws WeldlineError `publish.conflict`
 */
export async function checkVersion(
  target: string,
  artefact: string,
  planDigest: string,
): Promise<void> {
  const location = join(target, artefact);
  const text = await readFile(join(location, RELEASE_FILE), 'utf8').catch(() => undefined);
  if (text === undefined || memberOf(text, 'plan') === planDigest) return;
  throw conflict(location, 'made from other inputs');
}

async function isPublished(location: string, manifestDigest: string): Promise<boolean> {
  let text: string;
  try {
    text = await readFile(join(location, RELEASE_FILE), 'utf8');
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw toPublishError(error, location);
    const occupied = await access(location).then(
      () => true,
      () => false,
    );
    if (!occupied) return false;
    throw conflict(location, 'which is not a release of weldline');
  }
  if (memberOf(text, 'manifestDigest') === manifestDigest) return true;
  throw conflict(location, 'made from other inputs');
}

function memberOf(release: string, key: 'manifestDigest' | 'plan'): unknown {
  try {
    return (JSON.parse(release) as Partial<Record<typeof key, unknown>>)[key];
  } catch {
    return undefined;
  }
}

function conflict(location: string, what: string): WeldlineError {
  return new WeldlineError(
    'publish.conflict',
    `${location} exists already, ${what}. A version is published once: raise "version" in the ` +
      'recipe, or remove the directory.',
  );
}

function toPublishError(error: unknown, path: string): WeldlineError {
  if (error instanceof WeldlineError) return error;
  const code = systemErrorCode(error);
  if (['EACCES', 'EPERM', 'EROFS', 'ENOTDIR'].includes(code ?? '')) {
    return new WeldlineError(
      'publish.not-writable',
      `${path} cannot be written (${code}). Change its permissions or the target in the recipe.`,
      { cause: error },
    );
  }
  return toWriteError(error, path);
}
