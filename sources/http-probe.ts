import { WeldlineError } from '../engine/errors.ts';
import { httpRequest } from '../remote/http.ts';
import type { Patience } from '../remote/patience.ts';
import { encodeHubPath } from './hub-path.ts';
import { NO_VERSION, type RemoteFile } from './remote-source.ts';

/** Answers that say that there is no such file, or none for us. Storage hosts say 403 for both. */
const ABSENT = [403, 404, 410];
/** Answers of servers that know no HEAD. */
const NO_HEAD = [405, 501];

export interface HttpPlace {
  /** Of the model. */
  readonly uri: string;
  readonly path: string;
  readonly patience: Patience;
  readonly signal: AbortSignal;
}

export interface Probed {
  readonly status: number;
  /** Undefined where there is none. */
  readonly file?: RemoteFile;
}

/** How failures of plain web servers are called. */
export function codeOfHttp(status: number): WeldlineError['code'] {
  if (status === 401 || status === 403) return 'source.unauthorized';
  if (status === 404 || status === 410) return 'source.not-found';
  return status === 412 ? 'source.changed' : 'source.unavailable';
}

export function fileUrl(uri: string, path: string): string {
  return `${uri}/${encodeHubPath(path)}`;
}

/**
 * Whether a file is there, how large it is and what pins it: by HEAD, or by its first byte.
 * @throws WeldlineError `source.unauthorized` for 401, `source.unavailable`
 */
export async function probeHttpFile(place: HttpPlace): Promise<Probed> {
  const answer = await ask(place, 'HEAD');
  if (ABSENT.includes(answer.status)) return { status: answer.status };
  if (!NO_HEAD.includes(answer.status)) {
    if (isPage(answer, place.path)) return { status: 404 };
    const size = sizeIn(answer.headers.get('content-length'));
    if (size !== undefined && isPlain(answer)) return found(place.path, size, answer.headers);
  }
  return probeByRange(place);
}

async function probeByRange(place: HttpPlace): Promise<Probed> {
  const answer = await ask(place, 'GET', { range: 'bytes=0-0' });
  const { status, headers } = answer;
  await answer.body?.cancel();
  if (ABSENT.includes(status) || isPage(answer, place.path)) return { status: 404 };
  // An empty file has no first byte.
  const total = /^bytes (?:\*|\d+-\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1];
  const size = sizeIn(status === 200 ? headers.get('content-length') : (total ?? null));
  if (size === undefined || !isPlain(answer)) {
    throw new WeldlineError(
      'source.unavailable',
      `${fileUrl(place.uri, place.path)}: the server does not say how large it is. Serve it from a ` +
        'server that answers byte ranges and does not compress.',
    );
  }
  return found(place.path, size, headers);
}

function ask(
  { uri, path, patience, signal }: HttpPlace,
  method: 'HEAD' | 'GET',
  headers: Record<string, string> = {},
): Promise<Response> {
  const url = fileUrl(uri, path);
  return httpRequest({
    url,
    method,
    headers: { 'accept-encoding': 'identity', ...headers },
    signal,
    patience,
    name: url,
    accept: [...ABSENT, ...(method === 'HEAD' ? NO_HEAD : [416])],
    codeOf: codeOfHttp,
  });
}

function isPlain({ headers }: Response): boolean {
  return ['', 'identity'].includes(headers.get('content-encoding') ?? '');
}

/** Servers of web applications answer anything they do not know with their page. */
function isPage({ headers }: Response, path: string): boolean {
  return !path.endsWith('.html') && /^text\/html\b/i.test(headers.get('content-type') ?? '');
}

function sizeIn(header: string | null): number | undefined {
  return header !== null && /^\d{1,15}$/.test(header) ? Number(header) : undefined;
}

function found(path: string, size: number, headers: Headers): Probed {
  return { status: 200, file: { path, size, version: versionIn(headers) ?? NO_VERSION } };
}

/** What tells two states of a file apart: `etag:"…"` or `modified:…`; undefined without either. */
export function versionIn(headers: Headers): string | undefined {
  const etag = headers.get('etag')?.trim();
  if (etag) return `etag:${etag}`;
  const modified = headers.get('last-modified')?.trim();
  return modified ? `modified:${modified}` : undefined;
}
