import type { Secret } from '../../config/secret.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { request } from '../http.ts';
import type { Patience } from '../publisher.ts';
import { cancelled, isCommit, nameOf, notHub, readJson, readText } from './hub-answers.ts';
import { parseTree, type TreeEntry } from './hub-tree.ts';

/** Where a hub is, and as whom it is asked. */
export interface HubAccess {
  /** Without a trailing slash. */
  readonly endpoint: string;
  readonly token?: Secret | undefined;
  readonly patience: Patience;
}

export interface HubCall {
  readonly method?: 'GET' | 'POST' | 'DELETE';
  /** Below the endpoint, percent-encoded, with a leading slash. */
  readonly path: string;
  /** What is asked for, as errors show it. */
  readonly name: string;
  readonly json?: unknown;
  readonly ndjson?: readonly unknown[];
  readonly accept?: readonly number[];
  readonly signal: AbortSignal;
}

/** Names of branches and tags, and the commits they are at. */
export interface Refs {
  readonly branches: ReadonlyMap<string, string>;
  readonly tags: ReadonlyMap<string, string>;
}

export interface CommitSummary {
  readonly id: string;
  readonly title: string;
}

/** One line of a commit, as the hub takes them. */
export type CommitLine =
  | { readonly key: 'file'; readonly value: object }
  | { readonly key: 'lfsFile'; readonly value: object }
  | { readonly key: 'deletedFile'; readonly value: { readonly path: string } };

/** 200 pages of a thousand files: the hub advises against more than 100,000 in a repository. */
const PAGES_MAX = 200;

/**
 * The hub's protocol, as far as publishing needs it and `@huggingface/hub` has no (or no safe) call.
 * All methods throw WeldlineError `publish.*`, and the signal's reason.
 */
export class HubApi {
  readonly access: HubAccess;

  constructor(access: HubAccess) {
    this.access = access;
  }

  /** Requests go out again while that may help; those that change something are safe to repeat. */
  async call(call: HubCall): Promise<Response> {
    const { method = 'GET', json, ndjson, name, signal, accept = [] } = call;
    const body = ndjson?.map((line) => JSON.stringify(line)).join('\n') ?? JSON.stringify(json);
    const type = ndjson === undefined ? 'application/json' : 'application/x-ndjson';
    try {
      return await request({
        url: `${this.access.endpoint}${call.path}`,
        method,
        headers: { ...this.authorization(), ...(body && { 'content-type': type }) },
        ...(body && { body }),
        ...{ name, signal, accept, patience: this.access.patience },
      });
    } catch (error) {
      throw this.explained(error);
    }
  }

  authorization(): Record<string, string> {
    const { token } = this.access;
    return token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` };
  }

  /** For what a server says, which may repeat what it was sent. */
  withoutToken(text: string): string {
    const { token } = this.access;
    return token === undefined ? text : text.replaceAll(token.reveal(), '[secret]');
  }

  /** Says what to do where the token is not enough. */
  explained(error: unknown): unknown {
    if (!(error instanceof WeldlineError) || error.code !== 'publish.unauthorized') return error;
    return new WeldlineError(
      'publish.unauthorized',
      `${error.message} HF_TOKEN must hold a token of ${this.access.endpoint} that may write there ` +
        `(${this.access.endpoint}/settings/tokens).`,
      { details: error.details },
    );
  }

  /** Makes a repository, if there is none yet. */
  async createRepository(repo: string, isPrivate: boolean | undefined, signal: AbortSignal) {
    const [organization, name] = repo.split('/');
    const visibility = isPrivate ? 'private' : 'public';
    const response = await this.call({
      method: 'POST',
      path: '/api/repos/create',
      name: nameOf(repo),
      // Without a visibility it is what the organization has set.
      json: { type: 'model', name, organization, ...(isPrivate !== undefined && { visibility }) },
      accept: [409],
      signal,
    });
    await response.body?.cancel();
  }

  /** Whether everybody can see a repository. */
  async isPublic(repo: string, signal: AbortSignal): Promise<boolean> {
    const name = nameOf(repo);
    const response = await this.call({ path: `/api/models/${repo}`, name, signal });
    const { private: isPrivate } = ((await readJson(response, name)) ?? {}) as Record<
      string,
      unknown
    >;
    return isPrivate === false;
  }

  /** Undefined where there is no such repository, or it may not be seen. */
  async refs(repo: string, signal: AbortSignal): Promise<Refs | undefined> {
    const name = nameOf(repo);
    const response = await this.call({
      ...{ path: `/api/models/${repo}/refs`, accept: [404], name, signal },
    });
    if (response.status === 404) return cancelled(response);
    const { branches, tags } = ((await readJson(response, name)) ?? {}) as Record<string, unknown>;
    return { branches: parseRefs(branches, name), tags: parseRefs(tags, name) };
  }

  /** The newest commits of a branch, the newest first. */
  async commits(repo: string, branch: string, signal: AbortSignal): Promise<CommitSummary[]> {
    const name = `${nameOf(repo)}@${branch}`;
    const path = `/api/models/${repo}/commits/${encodeURIComponent(branch)}`;
    const list = await readJson(await this.call({ path, name, signal }), name);
    if (!Array.isArray(list)) throw notHub(name, 'lists no commits');
    return list.map(({ id, title }: Record<string, unknown>) => {
      if (!isCommit(id)) throw notHub(name, 'lists no commits');
      return { id, title: String(title) };
    });
  }

  /** All files of a commit, by path. */
  async tree(repo: string, commit: string, signal: AbortSignal): Promise<Map<string, TreeEntry>> {
    const name = `${nameOf(repo)}@${commit}`;
    const entries = new Map<string, TreeEntry>();
    let path: string | undefined = `/api/models/${repo}/tree/${commit}?recursive=true`;
    for (let page = 0; path !== undefined; page += 1) {
      if (page === PAGES_MAX) throw notHub(name, 'lists files without end');
      const response = await this.call({ path, name, signal });
      path = this.#nextPage(response.headers.get('link'), name);
      for (const entry of parseTree(await readJson(response, name), name)) {
        entries.set(entry.path, entry);
      }
    }
    return entries;
  }

  /** The text of a file; undefined where the commit has none of the name. */
  async readFile(repo: string, commit: string, file: string, signal: AbortSignal) {
    const name = `${nameOf(repo)}@${commit}/${file}`;
    const steps = file.split('/').map(encodeURIComponent).join('/');
    const response = await this.call({
      ...{ path: `/${repo}/resolve/${commit}/${steps}`, accept: [404], name, signal },
    });
    if (response.status === 404) return cancelled(response);
    return readText(response, name);
  }

  /**
   * Commits to a branch that is still at `parent`.
   * @returns the new commit
   * @throws WeldlineError `publish.conflict` if the branch is elsewhere
   */
  async commit(
    repo: string,
    commit: { branch: string; parent: string; title: string; lines: readonly CommitLine[] },
    signal: AbortSignal,
  ): Promise<string> {
    const { branch, parent, title, lines } = commit;
    const name = `${nameOf(repo)}@${branch}`;
    const header = { key: 'header', value: { summary: title, parentCommit: parent } };
    const response = await this.call({
      method: 'POST',
      path: `/api/models/${repo}/commit/${encodeURIComponent(branch)}`,
      ndjson: [header, ...lines],
      ...{ name, signal },
    });
    const { commitOid } = ((await readJson(response, name)) ?? {}) as Record<string, unknown>;
    if (isCommit(commitOid)) return commitOid;
    throw notHub(name, 'names no commit');
  }

  /** @returns false where there is a tag of the name already */
  async createTag(repo: string, tag: string, commit: string, signal: AbortSignal) {
    const response = await this.call({
      method: 'POST',
      path: `/api/models/${repo}/tag/${commit}`,
      json: { tag },
      accept: [409],
      ...{ name: `${nameOf(repo)}@${tag}`, signal },
    });
    await response.body?.cancel();
    return response.ok;
  }

  async deleteTag(repo: string, tag: string, signal: AbortSignal): Promise<void> {
    const response = await this.call({
      method: 'DELETE',
      path: `/api/models/${repo}/tag/${encodeURIComponent(tag)}`,
      accept: [404],
      ...{ name: `${nameOf(repo)}@${tag}`, signal },
    });
    await response.body?.cancel();
  }

  /** @returns false where there is a branch of the name already and it is not to be overwritten */
  async createBranch(
    repo: string,
    branch: { name: string; at: string; overwrite: boolean },
    signal: AbortSignal,
  ) {
    const response = await this.call({
      method: 'POST',
      path: `/api/models/${repo}/branch/${encodeURIComponent(branch.name)}`,
      json: { startingPoint: branch.at, overwrite: branch.overwrite },
      accept: [409],
      ...{ name: `${nameOf(repo)}@${branch.name}`, signal },
    });
    await response.body?.cancel();
    return response.ok;
  }

  /** Ids of the repositories of an owner whose names hold a text. */
  async search(owner: string, text: string, signal: AbortSignal): Promise<string[]> {
    const name = nameOf(`${owner}/${text}*`);
    const query = new URLSearchParams({ author: owner, search: text, limit: '1000' });
    const ids: string[] = [];
    let path: string | undefined = `/api/models?${query}`;
    for (let page = 0; path !== undefined && page < PAGES_MAX; page += 1) {
      const response = await this.call({ path, name, signal });
      path = this.#nextPage(response.headers.get('link'), name);
      const list = await readJson(response, name);
      if (!Array.isArray(list)) throw notHub(name, 'lists no models');
      for (const { id } of list) if (typeof id === 'string') ids.push(id);
    }
    return ids;
  }

  /** Path of the next page. It must be at the hub: the token goes there. */
  #nextPage(link: string | null, name: string): string | undefined {
    const target = /<([^>]*)>\s*;\s*rel="?next"?/.exec(link ?? '')?.[1];
    if (target === undefined) return undefined;
    const base = `${this.access.endpoint}/`;
    const url = URL.canParse(target, base) ? new URL(target, base).href : '';
    if (!url.startsWith(base)) throw notHub(name, 'continues a listing somewhere else');
    return url.slice(base.length - 1);
  }
}

function parseRefs(list: unknown, name: string): Map<string, string> {
  const refs = new Map<string, string>();
  for (const { name: ref, targetCommit } of Array.isArray(list) ? list : []) {
    if (typeof ref !== 'string' || !isCommit(targetCommit)) {
      throw notHub(name, 'lists a ref without a commit');
    }
    refs.set(ref, targetCommit);
  }
  return refs;
}
