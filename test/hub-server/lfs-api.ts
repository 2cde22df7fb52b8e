import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Refused, readJson, sendJson } from './answers.ts';
import type { ObjectStore } from './object-store.ts';

export interface LfsOptions {
  readonly objects: ObjectStore;
  /** Origin that answers the links of a batch. */
  readonly uploadOrigin: string;
  readonly hubOrigin: string;
  /** Larger objects go up in parts of this many bytes. */
  readonly partBytes: number;
  /** Offers Xet to those who can. */
  readonly hasXet: boolean;
  /** Refuses larger objects one by one, as the hub does with those above the quota. */
  readonly objectBytesMax: number;
}

interface BatchObject {
  readonly oid: string;
  readonly size: number;
}

interface Batch {
  readonly transfers: readonly string[];
  readonly objects: readonly BatchObject[];
}

/** `POST /{repo}.git/info/lfs/objects/batch`: tells what is there, and where to put what is not. */
export async function answerBatch(
  request: IncomingMessage,
  response: ServerResponse,
  repo: string,
  options: LfsOptions,
): Promise<void> {
  const { objects = [], transfers = [] } = await readJson<Batch>(request);
  const byXet = options.hasXet && transfers.includes('xet');
  const actions = byXet ? xetActions : actionsFor;
  const answers = [];
  for (const { oid, size } of objects) {
    const there = await options.objects.lfsFile(repo, oid, oid);
    if (size > options.objectBytesMax) {
      answers.push({ oid, size, error: { code: 403, message: 'Storage quota exceeded' } });
    } else
      answers.push(
        there ? { oid, size } : { oid, size, actions: actions(repo, oid, size, options) },
      );
  }
  response.setHeader('content-type', 'application/vnd.git-lfs+json');
  sendJson(response, { transfer: byXet ? 'xet' : 'basic', objects: answers });
}

function actionsFor(repo: string, oid: string, size: number, options: LfsOptions): object {
  const { uploadOrigin, hubOrigin, partBytes } = options;
  const owner = `repo=${encodeURIComponent(repo)}&oid=${oid}`;
  const verify = { href: `${hubOrigin}/api/lfs-verify?${owner}` };
  if (size <= partBytes) {
    return { upload: { href: `${uploadOrigin}/upload/${oid}?${owner}&signature=secret` }, verify };
  }
  const upload = randomUUID();
  const numbers = Array.from({ length: Math.ceil(size / partBytes) }, (_, index) => index + 1);
  const parts = numbers.map((part) => [
    String(part).padStart(5, '0'),
    `${uploadOrigin}/upload/${oid}?${owner}&upload=${upload}&part=${part}&signature=secret`,
  ]);
  return {
    upload: {
      href: `${hubOrigin}/api/complete_multipart?${owner}&upload=${upload}`,
      header: { chunk_size: String(partBytes), ...Object.fromEntries(parts) },
    },
    verify,
  };
}

function xetActions(repo: string, _oid: string, _size: number, { hubOrigin }: LfsOptions): object {
  return { upload: { href: `${hubOrigin}/api/models/${repo}/xet-write-token/main`, header: {} } };
}

/** A link of a batch: an object, or a part of one. */
export async function takeUpload(
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  objects: ObjectStore,
  onBytes: (bytes: number) => void,
): Promise<void> {
  // Storage hosts refuse two ways of authentication at once, and must never see a hub token.
  if (request.headers.authorization !== undefined) {
    throw new Refused(400, 'Only one way of authentication');
  }
  if (request.headers['content-length'] === undefined) throw new Refused(411, 'Length required');
  const { repo, oid, upload, part } = Object.fromEntries(url.searchParams);
  const body = counted(request, onBytes);
  if (upload === undefined) await objects.receive(repo!, oid!, body);
  else response.setHeader('etag', await objects.receivePart(upload, Number(part), body));
  response.writeHead(200).end();
}

/** `POST /api/complete_multipart` and `POST /api/lfs-verify`. */
export async function finishUpload(
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  objects: ObjectStore,
): Promise<void> {
  const { repo, oid, upload } = Object.fromEntries(url.searchParams);
  const { parts = [], size } = await readJson<{ parts: object[]; size: number }>(request);
  if (upload !== undefined) await objects.complete(repo!, oid!, upload, parts.length);
  else if ((await objects.lfsFile(repo!, oid!, oid!))?.size !== size) {
    throw new Refused(404, 'No such object');
  }
  sendJson(response, { message: 'ok' });
}

async function* counted(
  body: AsyncIterable<Buffer>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  for await (const piece of body) {
    onBytes(piece.length);
    yield piece;
  }
}
