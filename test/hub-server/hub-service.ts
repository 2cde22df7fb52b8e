import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { missingRepository, refusalOf } from './access.ts';
import { accountOf, isMember } from './accounts.ts';
import { answerFault, Refused, refuse, sendJson } from './answers.ts';
import {
  type CatalogCommit,
  type CatalogFile,
  type CatalogRepository,
  findCommit,
} from './catalog.ts';
import { type Fault, FaultList, type Target } from './faults.ts';
import type { HubServerOptions, LoggedRequest } from './hub-server.ts';
import { takeUpload } from './lfs-api.ts';
import { modelInformation, treeEntries } from './model-api.ts';
import { ObjectStore } from './object-store.ts';
import { sendFile } from './send-file.ts';
import { StorageLinks } from './storage-links.ts';
import { isWriteCall, serveWriteCall } from './write-api.ts';
import { XetStore } from './xet-store.ts';

const PART_BYTES = 16 * 1024 * 1024;

/** What the servers of a hub answer: the hub itself, and its storage host. */
export class HubService {
  readonly options: HubServerOptions;
  readonly requests: LoggedRequest[] = [];
  readonly faults = new FaultList();
  repositories: Map<string, CatalogRepository>;
  links = new StorageLinks('');
  uploadOrigin = '';
  storageOrigin = '';
  readonly #objects: ObjectStore;
  readonly #xet: XetStore;

  constructor(options: HubServerOptions, repositories: Map<string, CatalogRepository>) {
    this.options = options;
    this.repositories = repositories;
    this.#objects = new ObjectStore(join(options.root, '.objects'));
    this.#xet = new XetStore(this.#objects);
  }

  async serveHub(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (url.pathname.startsWith('/upload/')) return this.#takeUpload(request, response, url);
    if (isWriteCall(url)) return this.#serveWriteCall(request, response, url);
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

  async #serveWriteCall(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
  ): Promise<void> {
    this.#log('api', request, url.pathname);
    const fault = this.faults.take('api', url.pathname);
    if (answerFault(response, fault) || fault?.kind === 'stall') return;
    const { accounts = {}, partBytes = PART_BYTES, objectBytesMax = Infinity } = this.options;
    await serveWriteCall({
      request,
      response,
      url,
      options: {
        accounts,
        partBytes,
        objectBytesMax,
        uploadOrigin: this.uploadOrigin,
        storageOrigin: this.storageOrigin,
        hasXet: this.options.hasXet ?? false,
        objects: this.#objects,
        xet: this.#xet,
        repositories: () => this.repositories,
      },
    });
  }

  async #takeUpload(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const logged = this.#log('storage', request, url.pathname);
    const fault = this.faults.take('storage', url.pathname);
    if (answerFault(response, fault) || fault?.kind === 'stall') return;
    const onBytes = (bytes: number): void => {
      logged.bytesReceived += bytes;
    };
    try {
      if (url.pathname.startsWith('/v1/')) await this.#xet.serve(request, response, url);
      else await takeUpload(request, response, url, this.#objects, onBytes);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refuse(response, error.refusal);
    }
  }

  async serveStorage(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (/^\/(upload|v1)\//.test(url.pathname)) return this.#takeUpload(request, response, url);
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
      bytesReceived: 0,
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
    const isHidden =
      repository?.isPrivate === true &&
      !isMember(accountOf(this.options.accounts ?? {}, request), repo);
    const refusal =
      repository === undefined || isHidden
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
      .flatMap(({ commits }) => [...commits.values()])
      .flatMap(({ files }) => [...files.values()])
      .find((file) => file.sha256 === sha256);
  }
}

function decode(text: string): string {
  return decodeURIComponent(text);
}
