/**
 * A server on this machine that speaks the protocol of the Hugging Face hub over a directory tree:
 * model information, file listings by page, file addresses with redirects to a storage host of
 * another origin, access control, and faults on demand. The official Python client works against it
 * with `HF_ENDPOINT`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type AccessRules, missingRepository, type Refusal, refusalOf } from './access.ts';
import {
  type CatalogCommit,
  type CatalogFile,
  type CatalogRepository,
  findCommit,
  readCatalog,
} from './catalog.ts';
import { type Fault, FaultList, type Target } from './faults.ts';
import { closeServer, listen, originOf } from './listen.ts';
import { modelInformation, treeEntries } from './model-api.ts';
import { sendFile } from './send-file.ts';
import { StorageLinks } from './storage-links.ts';

export interface HubServerOptions extends AccessRules {
  readonly root: string;
  /** Port of the hub; the storage host always gets a free one. */
  readonly port?: number;
  /** Entries on a page of a listing; the hub has 1,000. */
  readonly pageSize?: number;
  /** How long a link to storage is good for. */
  readonly linkLifeMs?: number;
  /** Speed of each connection. */
  readonly bytesPerSecond?: number;
}

export interface LoggedRequest {
  readonly target: Target;
  readonly method: string;
  /** Path of the file in the repository; for the API, of the URL. */
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  bytesSent: number;
}

export interface HubServer {
  readonly endpoint: string;
  /** Origin of the storage host. */
  readonly storage: string;
  readonly requests: LoggedRequest[];
  inject(fault: Fault): void;
  clearFaults(): void;
  /** Reads the tree again: branches move to new commits. */
  reload(): Promise<void>;
  /** The commit a revision names. */
  commitOf(repo: string, revision: string): string;
  close(): Promise<void>;
}

export async function startHubServer(options: HubServerOptions): Promise<HubServer> {
  const service = new HubService(options, await readCatalog(options.root));
  const hub = await listen(options.port ?? 0, (...call) => service.serveHub(...call));
  const storage = await listen(0, (...call) => service.serveStorage(...call));
  service.links = new StorageLinks(originOf(storage), options.linkLifeMs);
  return {
    endpoint: originOf(hub),
    storage: originOf(storage),
    requests: service.requests,
    inject: (fault) => service.faults.add(fault),
    clearFaults: () => service.faults.clear(),
    async reload() {
      service.repositories = await readCatalog(options.root);
    },
    commitOf(repo, revision) {
      const repository = service.repositories.get(repo);
      const commit = repository && findCommit(repository, revision);
      if (commit === undefined) throw new Error(`no revision ${revision} of ${repo}`);
      return commit.sha;
    },
    async close() {
      await Promise.all([hub, storage].map(closeServer));
    },
  };
}

class HubService {
  readonly options: HubServerOptions;
  readonly requests: LoggedRequest[] = [];
  readonly faults = new FaultList();
  repositories: Map<string, CatalogRepository>;
  links = new StorageLinks('');

  constructor(options: HubServerOptions, repositories: Map<string, CatalogRepository>) {
    this.options = options;
    this.repositories = repositories;
  }

  async serveHub(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const api = /^\/api\/models\/(.+?)(?:\/(revision|tree)\/([^/]+))?$/.exec(url.pathname);
    if (api !== null) {
      const [, repo, kind, revision = 'main'] = api;
      this.#serveApi(request, response, url, decode(repo!), kind, decode(revision));
      return;
    }
    const file = /^\/(.+?)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    if (file === null) refuse(response, { status: 404, errorCode: '', message: 'Not found' });
    else
      await this.#serveResolve(
        request,
        response,
        decode(file[1]!),
        decode(file[2]!),
        decode(file[3]!),
      );
  }

  async serveStorage(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const sha256 = url.pathname.slice(1);
    const file = this.#fileWith(sha256);
    const logged = this.#log('storage', request, file?.path ?? url.pathname);
    const fault = this.faults.take('storage', logged.path);
    if (answerFault(response, fault)) return;
    // Storage hosts refuse two ways of authentication at once, and must never see a hub token.
    if (request.headers.authorization !== undefined) {
      refuse(response, { status: 400, errorCode: '', message: 'Only one way of authentication' });
    } else if (file === undefined || !this.links.isValid(url)) {
      refuse(response, { status: 403, errorCode: '', message: 'Request has expired' });
    } else {
      // An ETag of another kind than the hub's, as storage hosts have.
      const headers = { etag: `"${sha256.slice(0, 32)}"` };
      await this.#send(request, response, file, headers, fault, logged);
    }
  }

  #serveApi(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    repo: string,
    kind: string | undefined,
    revision: string,
  ): void {
    this.#log('api', request, url.pathname);
    const fault = this.faults.take('api', url.pathname);
    if (answerFault(response, fault) || fault?.kind === 'stall') return;
    const found = this.#find(request, response, repo, revision, false);
    if (found === undefined) return;
    if (kind !== 'tree') {
      const withBlobs = url.searchParams.get('blobs')?.toLowerCase() === 'true';
      sendJson(response, modelInformation(found.repository, found.commit, withBlobs));
      return;
    }
    const entries = treeEntries(found.commit);
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const end = start + (this.options.pageSize ?? 1000);
    if (end < entries.length) {
      const next = new URL(url);
      next.searchParams.set('cursor', String(end));
      response.setHeader('link', `<${next.href}>; rel="next"`);
    }
    sendJson(response, entries.slice(start, end));
  }

  async #serveResolve(
    request: IncomingMessage,
    response: ServerResponse,
    repo: string,
    revision: string,
    path: string,
  ): Promise<void> {
    const logged = this.#log('resolve', request, path);
    const fault = this.faults.take('resolve', path);
    if (answerFault(response, fault)) return;
    const found = this.#find(request, response, repo, revision, true);
    if (found === undefined) return;
    response.setHeader('x-repo-commit', found.commit.sha);
    const file = found.commit.files.get(path);
    if (file === undefined) {
      refuse(response, { status: 404, errorCode: 'EntryNotFound', message: 'Entry not found' });
      return;
    }
    const identity = file.sha256 ?? file.gitOid;
    const etag = `"${fault?.kind === 'etag' ? 'f'.repeat(identity.length) : identity}"`;
    if (file.sha256 === undefined) {
      await this.#send(request, response, file, { etag }, fault, logged);
      return;
    }
    response.writeHead(302, {
      'x-linked-etag': etag,
      'x-linked-size': String(file.size),
      location: this.links.linkTo(file.sha256),
    });
    response.end();
  }

  #log(target: Target, request: IncomingMessage, path: string): LoggedRequest {
    const logged: LoggedRequest = {
      target,
      method: request.method ?? '',
      path,
      range: request.headers.range,
      authorization: request.headers.authorization,
      bytesSent: 0,
    };
    this.requests.push(logged);
    return logged;
  }

  /** Answers with the hub's own error if there is no such commit or it may not be seen. */
  #find(
    request: IncomingMessage,
    response: ServerResponse,
    repo: string,
    revision: string,
    downloads: boolean,
  ): { repository: CatalogRepository; commit: CatalogCommit } | undefined {
    const repository = this.repositories.get(repo);
    const refusal =
      repository === undefined
        ? missingRepository(request.headers.authorization !== undefined)
        : refusalOf(this.options, request, repo, downloads);
    const commit = repository && findCommit(repository, revision);
    if (refusal !== undefined) refuse(response, refusal);
    else if (commit === undefined) {
      const message = `Invalid rev id: ${revision}`;
      refuse(response, { status: 404, errorCode: 'RevisionNotFound', message });
    } else return { repository: repository!, commit };
    return undefined;
  }

  async #send(
    request: IncomingMessage,
    response: ServerResponse,
    file: CatalogFile,
    headers: Readonly<Record<string, string>>,
    fault: Fault | undefined,
    logged: LoggedRequest,
  ): Promise<void> {
    await sendFile(request, response, {
      absolutePath: file.absolutePath,
      size: file.size,
      headers,
      fault,
      bytesPerSecond: this.options.bytesPerSecond,
      onSent: (bytes) => {
        logged.bytesSent += bytes;
      },
    });
  }

  #fileWith(sha256: string): CatalogFile | undefined {
    return [...this.repositories.values()]
      .flatMap(({ revisions }) => [...revisions.values()])
      .flatMap(({ files }) => [...files.values()])
      .find((file) => file.sha256 === sha256);
  }
}

/** Faults that replace the whole answer. */
function answerFault(response: ServerResponse, fault: Fault | undefined): boolean {
  if (fault?.kind !== 'status') return false;
  response.writeHead(fault.status ?? 500, fault.headers).end();
  return true;
}

function refuse(response: ServerResponse, refusal: Refusal): void {
  response.writeHead(refusal.status, {
    'content-type': 'application/json',
    'x-error-message': refusal.message,
    ...(refusal.errorCode === '' ? {} : { 'x-error-code': refusal.errorCode }),
  });
  response.end(JSON.stringify({ error: refusal.message }));
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json; charset=utf-8' });
  response.end(JSON.stringify(value));
}

function decode(text: string): string {
  return decodeURIComponent(text);
}
