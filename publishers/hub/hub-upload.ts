import type { CommitOperation, CommitProgressEvent } from '@huggingface/hub';
import { WeldlineError } from '../../engine/errors.ts';
import { request } from '../http.ts';
import type { ArtefactFile, PublishProgress } from '../publisher.ts';
import { changed, checkSources, FileBlob } from './file-blob.ts';
import { isCommit, nameOf, notHub } from './hub-answers.ts';
import type { HubApi } from './hub-api.ts';

/** A commit to `main` of a hub repository. */
export interface Upload {
  readonly repo: string;
  readonly parent: string;
  readonly title: string;
  readonly files: readonly ArtefactFile[];
  readonly deleted: readonly string[];
  readonly signal: AbortSignal;
  readonly onProgress: (progress: PublishProgress) => void;
  /** Bytes of files that went out. */
  readonly onSent: (bytes: number) => void;
}

/**
 * Uploads files and makes one commit of them, with the hub's own client: it decides between LFS, Xet
 * and git as the hub asks for it, and sends no object that the hub has. Requests are weldline's.
 * @returns the new commit
 * @throws WeldlineError `publish.conflict` if the branch is no longer at `parent`, others of
 *   `publish.*`, `disk.read-failed`; the signal's reason
 */
export async function uploadCommit(api: HubApi, upload: Upload): Promise<string> {
  const { repo, parent, title, files, deleted, signal } = upload;
  await checkSources(files);
  const { commitIter } = await import('@huggingface/hub');
  const requests = new UploadRequests(api, upload);
  const operations: CommitOperation[] = [
    ...files.map((file) => ({
      operation: 'addOrUpdate' as const,
      path: file.path,
      content: new FileBlob(file),
    })),
    ...deleted.map((path) => ({ operation: 'delete' as const, path })),
  ];
  try {
    const steps = commitIter({
      ...{ repo, title, operations, branch: 'main', parentCommit: parent },
      hubUrl: api.access.endpoint,
      // The token is added to requests to the hub alone.
      fetch: requests.fetch,
      abortSignal: signal,
    });
    let step = await steps.next();
    for (; !step.done; step = await steps.next()) report(upload, step.value);
    const id = step.value?.commit.oid;
    if (!isCommit(id)) throw notHub(nameOf(repo), 'names no commit');
    return id;
  } catch (error) {
    signal.throwIfAborted();
    if (requests.failure !== undefined) throw requests.failure;
    if (error instanceof WeldlineError) throw error;
    // The client's own errors quote signed links.
    throw notHub(nameOf(repo), `breaks the protocol of uploads (${(error as Error).name})`);
  }
}

/** Xet's blocks hold parts of several files, so only the client knows how far each of them is. */
function report({ files, signal, onProgress }: Upload, event: CommitProgressEvent): void {
  signal.throwIfAborted();
  if (event.event !== 'fileProgress' || event.state !== 'uploading') return;
  const size = files.find(({ path }) => path === event.path)?.size ?? 0;
  const bytesDone = Math.round(size * Math.min(Math.max(event.progress, 0), 1));
  onProgress({ item: event.path, bytesDone, bytesTotal: size });
}

/** The requests of one upload by the client, patient and without secrets in what they throw. */
class UploadRequests {
  /** The first of requests that may have failed side by side. */
  failure: unknown;
  readonly #api: HubApi;
  readonly #upload: Upload;
  readonly #inLfs = new Set<string>();
  readonly #bytesDone = new Map<string, number>();

  constructor(api: HubApi, upload: Upload) {
    this.#api = api;
    this.#upload = upload;
  }

  readonly fetch: typeof globalThis.fetch = async (input, init = {}) => {
    try {
      return await this.#request(new URL(String(input)), init);
    } catch (error) {
      this.failure ??= this.#api.explained(error);
      throw error;
    }
  };

  async #request(url: URL, init: RequestInit): Promise<Response> {
    const { signal, repo } = this.#upload;
    const { pathname } = url;
    const isBatch = pathname.endsWith('.git/info/lfs/objects/batch');
    if (isBatch) this.#checkBatch(String(init.body));
    const body = this.#bodyOf(init.body);
    const response = await request({
      url,
      method: init.method ?? 'GET',
      headers: { ...this.#headersFor(url, init.headers), ...body?.headers },
      ...(body && { body: body.content }),
      patience: this.#api.access.patience,
      name: body?.name ?? nameOf(repo),
      // Of most chunks Xet's store has not heard.
      accept: pathname.includes('/v1/chunks/') ? [404] : [],
      signal: init.signal ? AbortSignal.any([init.signal, signal]) : signal,
    });
    // Read here, so that the client cannot wait for a body that stalls.
    const content = await response.arrayBuffer();
    this.#count(pathname, init.body);
    if (isBatch) this.#checkAnswer(Buffer.from(content).toString('utf8'));
    const { status, headers } = response;
    return new Response(content.byteLength === 0 ? null : content, { status, headers });
  }

  /** Links to storage carry their own permission, and that host must not see the token. */
  #headersFor(url: URL, given: RequestInit['headers']): Record<string, string> {
    const { endpoint } = this.#api.access;
    const headers = Object.fromEntries(new Headers(given));
    const isCall = /\/api\/|\.git\/info\/lfs\/objects\/batch$/.test(url.pathname);
    if (!isCall || !url.href.startsWith(`${endpoint}/`) || 'authorization' in headers) {
      return headers;
    }
    return { ...headers, ...this.#api.authorization() };
  }

  #bodyOf(body: RequestInit['body']) {
    if (typeof body === 'string' || body instanceof Uint8Array) {
      return { content: body, headers: {}, name: undefined };
    }
    if (body === null || body === undefined) return undefined;
    if (!(body instanceof FileBlob)) throw new TypeError('a body of an unknown kind');
    return {
      content: () => this.#watched(body),
      headers: { 'content-length': String(body.size) },
      name: `${nameOf(this.#upload.repo)}/${body.file.path}`,
    };
  }

  async *#watched(blob: FileBlob): AsyncGenerator<Uint8Array> {
    const { path: item, size: bytesTotal } = blob.file;
    for await (const chunk of blob.chunks()) {
      yield chunk;
      // Parts go out side by side, and again after a failure.
      const bytes = Math.min((this.#bytesDone.get(item) ?? 0) + chunk.length, bytesTotal);
      this.#bytesDone.set(item, bytes);
      this.#upload.onProgress({ item, bytesDone: bytes, bytesTotal });
      this.#upload.signal.throwIfAborted();
    }
  }

  #count(pathname: string, body: RequestInit['body']): void {
    const { files, onSent } = this.#upload;
    if (body instanceof FileBlob) onSent(body.size);
    // Xet's blocks.
    else if (body instanceof Uint8Array) onSent(body.byteLength);
    else if (pathname.includes('/commit/')) {
      for (const { sha256, size } of files) if (!this.#inLfs.has(sha256)) onSent(size);
    }
  }

  /** The client has read the files: they must be what was verified before anything is sent. */
  #checkBatch(body: string): void {
    const { files } = this.#upload;
    const { objects } = JSON.parse(body) as { objects: { oid: string; size: number }[] };
    for (const { oid, size } of objects) {
      this.#inLfs.add(oid);
      if (files.some(({ sha256 }) => sha256 === oid)) continue;
      const own = new Set(objects.map((object) => object.oid));
      const file = files.find((each) => each.size === size && !own.has(each.sha256));
      throw file === undefined
        ? notHub(nameOf(this.#upload.repo), 'mixes files up')
        : changed(file);
    }
  }

  /** The hub refuses objects one by one where a quota is used up. */
  #checkAnswer(text: string): void {
    const { repo, files } = this.#upload;
    const { objects } = (parsed(text) ?? {}) as { objects?: unknown };
    if (!Array.isArray(objects)) throw notHub(nameOf(repo), 'answers without objects');
    for (const { oid, error } of objects as Record<string, unknown>[]) {
      if (error === undefined || error === null) continue;
      const { code, message } = error as { code?: unknown; message?: unknown };
      const path = files.find(({ sha256 }) => sha256 === oid)?.path ?? 'an object';
      const said = this.#api.withoutToken(String(message)).replace(/[\p{Cc}\p{Cf}]+/gu, ' ');
      throw new WeldlineError(
        'publish.rejected',
        `${nameOf(repo)}: the hub does not take ${path} (${String(code)}: ${said.slice(0, 300)}). ` +
          'Look at the storage quota of its owner.',
      );
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
