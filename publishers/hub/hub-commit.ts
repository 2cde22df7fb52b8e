import { setTimeout as sleep } from 'node:timers/promises';
import { WeldlineError } from '../../engine/errors.ts';
import {
  type Artefact,
  type ArtefactId,
  artefactNameOf,
  type PublishOptions,
  RELEASE_FILE,
} from '../publisher.ts';
import { nameOf } from './hub-answers.ts';
import type { HubApi } from './hub-api.ts';
import { ArtefactTree } from './hub-tree.ts';
import { uploadCommit } from './hub-upload.ts';

/** Each is lost to somebody else's commit, or to a server that fails. */
const ATTEMPTS_MAX = 8;
const MAIN = 'main';
/** What weldline writes after `release.json`, which so cannot list it. */
const WRITTEN_AFTERWARDS = [
  ...['weldline.json', 'conversion.json'],
  ...['provenance.intoto.json', 'model.sig', RELEASE_FILE],
];

/**
 * Brings an artefact onto `main` as one commit, and compares what arrived with its digests. A commit
 * that an earlier attempt made is found again by its title and its files.
 * @returns the commit; it has exactly these files and those of people
 * @throws WeldlineError `publish.*`, `disk.read-failed`; the signal's reason
 */
export async function commitArtefact(
  api: HubApi,
  repo: string,
  artefact: Artefact,
  options: PublishOptions & { readonly onSent: (bytes: number) => void },
): Promise<string> {
  const { signal } = options;
  const tree = new ArtefactTree(artefact.files);
  const title = `Publish ${artefactNameOf(artefact)} (${artefact.manifestDigest.slice(0, 16)})`;
  let failure: WeldlineError | undefined;
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    const commits = await api.commits(repo, MAIN, signal);
    // What was taken back since is no longer on the branch.
    const takenBack = commits.findIndex((commit) => commit.title === titleOfWithdrawal(artefact));
    const since = commits.slice(0, takenBack < 0 ? undefined : takenBack);
    for (const { id } of since.filter((commit) => commit.title === title)) {
      const missing = await tree.missingFrom(await api.tree(repo, id, signal));
      if (missing.length === 0) return id;
    }
    // What failed for good would fail again.
    if (failure !== undefined && !isPassing(failure)) throw failure;
    const parent = commits[0]?.id;
    if (parent === undefined) throw emptyRepository(repo);
    try {
      const there = await api.tree(repo, parent, signal);
      const files = await tree.missingFrom(there);
      const earlier = await releasedFiles(api, repo, parent, signal);
      const kept = new Set(artefact.files.map(({ path }) => path));
      const deleted = [...there.keys()].filter((path) => earlier.has(path) && !kept.has(path));
      if (files.length === 0 && deleted.length === 0) return parent;
      const commit = await uploadCommit(api, {
        ...{ repo, parent, title, files, deleted },
        ...{ signal, onProgress: options.onProgress, onSent: options.onSent },
      });
      const wrong = await tree.missingFrom(await api.tree(repo, commit, signal));
      if (wrong.length === 0) return commit;
      throw arrivedOtherwise(repo, commit, wrong[0]!.path);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof WeldlineError)) throw error;
      failure = error;
      if (!isPassing(error) && error.code !== 'publish.unavailable') throw error;
      await pause(api.access.patience.backoffMs * (0.5 + Math.random()), signal);
    }
  }
  throw new WeldlineError(
    'publish.unavailable',
    `${nameOf(repo)}: others commit to ${MAIN} all the time, so that nothing could be published; or ` +
      'the token may only open pull requests, which looks alike. Check it, and run again.',
    { cause: failure },
  );
}

/** Of the commit that takes an artefact off `main`. */
export function titleOfWithdrawal(id: ArtefactId): string {
  return `Take back ${artefactNameOf(id)}`;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}

/** Somebody else's commit came first. */
function isPassing({ code }: WeldlineError): boolean {
  return code === 'publish.conflict';
}

/** Paths that the release at a commit consists of, so that the next one can take them away. */
export async function releasedFiles(
  api: HubApi,
  repo: string,
  commit: string,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const text = await api.readFile(repo, commit, RELEASE_FILE, signal);
  if (text === undefined) return new Set();
  let release: unknown;
  try {
    release = JSON.parse(text);
  } catch {
    return new Set();
  }
  const { contents, files, conversion } = (release ?? {}) as Record<string, unknown>;
  const converted = (conversion as Record<string, unknown> | undefined)?.['files'];
  const listed = [contents, files, converted].flatMap((list) => (Array.isArray(list) ? list : []));
  const paths = listed.map((file: { path?: unknown } | null) => file?.path);
  return new Set([...paths.filter((path) => typeof path === 'string'), ...WRITTEN_AFTERWARDS]);
}

function arrivedOtherwise(repo: string, commit: string, path: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${nameOf(repo)}@${commit}: ${path} is not what was sent, so the version was not made visible. ` +
      'Publish again; if that stays, the hub or a proxy before it changes files.',
  );
}

function emptyRepository(repo: string): WeldlineError {
  return new WeldlineError(
    'publish.rejected',
    `${nameOf(repo)} has no branch ${MAIN}. Make it the default branch, or delete the empty repository.`,
  );
}
