import { WeldlineError } from '../../engine/errors.ts';
import {
  type AliasState,
  type Artefact,
  type ArtefactId,
  artefactNameOf,
  type FoundArtefact,
  type MoveAlias,
  type Published,
  type Publisher,
  type PublishOptions,
  RELEASE_FILE,
} from '../publisher.ts';
import { parseReleaseRecord } from '../release-record.ts';
import { mendAlias, moveHubAlias, readAliases } from './hub-aliases.ts';
import { nameOf } from './hub-answers.ts';
import { type HubAccess, HubApi, type Refs } from './hub-api.ts';
import { commitArtefact, releasedFiles, titleOfWithdrawal } from './hub-commit.ts';
import { checkNames, locationOf, repoOf } from './hub-names.ts';
import { requirePrivate, requireToken, requireWriter } from './hub-permissions.ts';

export interface HubTarget {
  /** `org/name`; conversions go to `org/name-<conversion>`. */
  readonly repo: string;
  /** How repositories are made; one that exists and is public is refused if true. */
  readonly private?: boolean | undefined;
}

const MAIN = 'main';
/** Of what others may come between: a name that is taken and free again, a branch that moves. */
const ATTEMPTS_MAX = 4;

/**
 * The Hugging Face Hub. A version is a tag: files come as one commit to `main`, which so holds what
 * was published last, and the tag that makes it visible comes after they were compared. Aliases are
 * branches, so that `revision="production"` works everywhere; see `hub-aliases.ts`.
 */
export class HubPublisher implements Publisher {
  readonly kind = 'hub';
  readonly name: string;
  readonly holds = 'files';
  readonly #target: HubTarget;
  readonly #api: HubApi;

  constructor(target: HubTarget, access: HubAccess) {
    this.name = nameOf(target.repo);
    this.#target = target;
    this.#api = new HubApi(access);
  }

  accepts(): boolean {
    return true;
  }

  async check(id: ArtefactId, planDigest: string | undefined, signal: AbortSignal): Promise<void> {
    checkNames(this.#target.repo, id);
    const repo = this.#repoOf(id);
    await requireWriter(this.#api, repo, signal);
    const refs = await this.#api.refs(repo, signal);
    if (refs !== undefined) await this.#requireVisibility(repo, signal);
    const tagged = refs?.tags.get(id.release);
    if (tagged === undefined) return;
    const found = await this.#read(id, tagged, signal);
    if (found === undefined) throw this.#conflict(id, 'which is not a release of weldline');
    if (planDigest !== undefined && found.planDigest !== planDigest) {
      throw this.#conflict(id, 'made from other inputs');
    }
  }

  async publish(artefact: Artefact, options: PublishOptions): Promise<Published> {
    const { signal, onProgress } = options;
    signal.throwIfAborted();
    requireToken(this.#api, this.name);
    checkNames(this.#target.repo, artefact);
    const repo = this.#repoOf(artefact);
    const refs = await this.#api.refs(repo, signal);
    const existing = await this.#published(artefact, refs, signal);
    if (existing !== undefined) return { ...existing, existed: true, bytesSent: 0 };
    if (refs === undefined) {
      await this.#api.createRepository(repo, this.#target.private, signal);
    } else await this.#requireVisibility(repo, signal);
    for (const { path: item, size: bytesTotal } of artefact.files) {
      if (item !== RELEASE_FILE) onProgress({ item, bytesDone: 0, bytesTotal });
      signal.throwIfAborted();
    }
    let bytesSent = 0;
    const onSent = (bytes: number): void => {
      bytesSent += bytes;
    };
    const commit = await commitArtefact(this.#api, repo, artefact, { ...options, onSent });
    const { size } = artefact.files.at(-1)!;
    onProgress({ item: RELEASE_FILE, bytesDone: size, bytesTotal: size });
    signal.throwIfAborted();
    const published = await this.#tag(artefact, commit, signal);
    return { ...published, bytesSent };
  }

  async find(id: ArtefactId, signal: AbortSignal): Promise<FoundArtefact | undefined> {
    const refs = await this.#api.refs(this.#repoOf(id), signal);
    const tagged = refs?.tags.get(id.release);
    return tagged === undefined ? undefined : this.#read(id, tagged, signal);
  }

  async list(signal: AbortSignal): Promise<readonly FoundArtefact[]> {
    const found: FoundArtefact[] = [];
    for (const part of await this.#parts(signal)) {
      const refs = await this.#api.refs(repoOf(this.#target.repo, part), signal);
      for (const [release, commit] of refs?.tags ?? []) {
        const artefact = await this.#read({ release, ...(part && { part }) }, commit, signal);
        if (artefact !== undefined) found.push(artefact);
      }
    }
    return found;
  }

  /** The commit stays in the history, where its id still finds it; the hub has no call against that. */
  async withdraw(id: ArtefactId, signal: AbortSignal): Promise<void> {
    requireToken(this.#api, this.name);
    const repo = this.#repoOf(id);
    const refs = await this.#api.refs(repo, signal);
    if (refs === undefined) return;
    const { aliases } = await readAliases(this.#api, repo, refs, signal);
    const pointing = Object.keys(aliases).filter((name) => aliases[name]?.release === id.release);
    if (pointing.length > 0) {
      throw new WeldlineError(
        'publish.aliased',
        `${locationOf(repo, id.release)} is what ${pointing.join(' and ')} points at. Move the ` +
          'alias to another release first.',
      );
    }
    await this.#api.deleteTag(repo, id.release, signal);
    await this.#clearMain(id, signal);
  }

  async readAlias(alias: string, part: string | undefined, signal: AbortSignal) {
    const repo = repoOf(this.#target.repo, part);
    const refs = await this.#api.refs(repo, signal);
    const wanted = (await readAliases(this.#api, repo, refs, signal)).aliases[alias];
    if (wanted !== undefined) await mendAlias(this.#api, { repo, alias, signal }, { refs, wanted });
    return wanted;
  }

  async listAliases(signal: AbortSignal) {
    const all: (AliasState & { readonly alias: string; readonly part?: string })[] = [];
    for (const part of await this.#parts(signal)) {
      for (const [alias, state] of Object.entries(await this.#aliasesOf(part, signal))) {
        const id = { release: state.release, ...(part && { part }) };
        // `org/name-2` may be a target of its own, and no part of `org/name`.
        if (part !== undefined && (await this.find(id, signal)) === undefined) continue;
        all.push({ alias, ...(part && { part }), ...state });
      }
    }
    return all;
  }

  async moveAlias(move: MoveAlias, signal: AbortSignal): Promise<void> {
    const { alias, part, to, from, history } = move;
    requireToken(this.#api, this.name);
    if (alias === MAIN) {
      throw new WeldlineError(
        'publish.rejected',
        `${this.name}: ${MAIN} is the branch that releases are committed to, and cannot be an alias.`,
      );
    }
    const id = { release: to, ...(part && { part }) };
    const repo = this.#repoOf(id);
    const target = (await this.#api.refs(repo, signal))?.tags.get(to);
    if (target === undefined || (await this.#read(id, target, signal)) === undefined) {
      throw new WeldlineError(
        'publish.not-found',
        `${locationOf(repo, to)} is not published, so ${alias} cannot point at it.`,
      );
    }
    const wanted = { release: to, history };
    await moveHubAlias(this.#api, { repo, alias, wanted, from, target, signal });
  }

  #repoOf({ part }: ArtefactId): string {
    return repoOf(this.#target.repo, part);
  }

  async #aliasesOf(part: string | undefined, signal: AbortSignal) {
    const repo = repoOf(this.#target.repo, part);
    const refs = await this.#api.refs(repo, signal);
    return (await readAliases(this.#api, repo, refs, signal)).aliases;
  }

  /** Parts that may have a repository; its own releases say whether it is one. */
  async #parts(signal: AbortSignal): Promise<readonly (string | undefined)[]> {
    const [owner = '', name = ''] = this.#target.repo.split('/');
    const repositories = await this.#api.search(owner, name, signal);
    const prefix = `${this.#target.repo}-`;
    const parts = repositories.filter((id) => id.startsWith(prefix));
    return [undefined, ...parts.map((id) => id.slice(prefix.length))];
  }

  /** The artefact at a commit, if that is what its release says. */
  async #read(id: ArtefactId, commit: string, signal: AbortSignal) {
    const repo = this.#repoOf(id);
    const text = await this.#api.readFile(repo, commit, RELEASE_FILE, signal);
    const record = text === undefined ? undefined : parseReleaseRecord(text);
    if (record === undefined || artefactNameOf(record) !== artefactNameOf(id)) return undefined;
    const { manifestDigest, planDigest, createdAt } = record;
    const found: FoundArtefact = {
      ...{ release: id.release, ...(id.part && { part: id.part }) },
      ...{ location: locationOf(repo, id.release), pinned: locationOf(repo, commit) },
      ...{ manifestDigest, planDigest, createdAt, isPruned: false },
    };
    return found;
  }

  /** Where the same artefact is already. @throws WeldlineError `publish.conflict` for another */
  async #published(artefact: Artefact, refs: Refs | undefined, signal: AbortSignal) {
    const tagged = refs?.tags.get(artefact.release);
    if (tagged === undefined) return undefined;
    const found = await this.#read(artefact, tagged, signal);
    if (found === undefined) throw this.#conflict(artefact, 'which is not a release of weldline');
    if (found.manifestDigest !== artefact.manifestDigest) {
      throw this.#conflict(artefact, 'made from other inputs');
    }
    const { location, pinned } = found;
    return { target: this.kind, location, pinned };
  }

  async #tag(artefact: Artefact, commit: string, signal: AbortSignal) {
    const repo = this.#repoOf(artefact);
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
      await this.#api.createTag(repo, artefact.release, commit, signal);
      // Also after a success: what counts is what others see.
      const refs = await this.#api.refs(repo, signal);
      const published = await this.#published(artefact, refs, signal);
      const existed = refs?.tags.get(artefact.release) !== commit;
      if (published !== undefined) return { ...published, existed };
    }
    throw new WeldlineError(
      'publish.unavailable',
      `${locationOf(repo, artefact.release)}: the hub has made no tag, although it said so. Run again.`,
    );
  }

  /** What a release that is taken back has on `main` must not be what people get by default. */
  async #clearMain(id: ArtefactId, signal: AbortSignal, attempt = 1): Promise<void> {
    const repo = this.#repoOf(id);
    const parent = (await this.#api.refs(repo, signal))?.branches.get(MAIN);
    if (parent === undefined || (await this.#read(id, parent, signal)) === undefined) return;
    const released = await releasedFiles(this.#api, repo, parent, signal);
    const tree = await this.#api.tree(repo, parent, signal);
    const paths = [...tree.keys()].filter((path) => released.has(path));
    const lines = paths.map((path) => ({ key: 'deletedFile', value: { path } }) as const);
    const title = titleOfWithdrawal(id);
    try {
      await this.#api.commit(repo, { branch: MAIN, parent, title, lines }, signal);
    } catch (error) {
      const isPassing = (error as { code?: unknown }).code === 'publish.conflict';
      if (!isPassing || attempt === ATTEMPTS_MAX) throw error;
      // Its answer was lost, or another release has taken its place: the next look tells.
      return this.#clearMain(id, signal, attempt + 1);
    }
  }

  async #requireVisibility(repo: string, signal: AbortSignal): Promise<void> {
    if (this.#target.private === true) await requirePrivate(this.#api, repo, signal);
  }

  #conflict(id: ArtefactId, what: string): WeldlineError {
    return new WeldlineError(
      'publish.conflict',
      `${locationOf(this.#repoOf(id), id.release)} exists already, ${what}. A version is published ` +
        'once: raise "version" in the recipe, or withdraw the release.',
    );
  }
}
