import type { ByteSource } from '../engine/byte-source.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import { httpRequest } from '../remote/http.ts';
import type { Patience } from '../remote/patience.ts';
import { checkRange } from './byte-range.ts';
import { fillByRange } from './fill-by-range.ts';
import { codeOfHttp, fileUrl, versionIn } from './http-probe.ts';
import { NO_VERSION, type RemoteFile } from './remote-source.ts';

/**
 * Some small servers ignore ranges and send the whole file. Up to this size that is taken and cut;
 * beyond it every range would cost the whole file again.
 */
const WHOLE_FILE_BYTES_MAX = 16 * 1024 * 1024;

/** A file under a plain URL, pinned by what its server called its version. */
export function openHttpFile(uri: string, file: RemoteFile, patience: Patience): ByteSource {
  const name = fileUrl(uri, file.path);
  const closing = new AbortController();
  return {
    name,
    size: file.size,
    async read(offset, length, room) {
      assert(!closing.signal.aborted, `${name} is read after it was closed`);
      checkRange(name, file.size, offset, length);
      const bytes = room?.subarray(0, length) ?? new Uint8Array(length);
      const { signal } = closing;
      const read = { url: name, file, patience, signal };
      await fillByRange(bytes, {
        ...{ name, offset, patience, signal },
        request: async (begin, count) => bodyFrom(await requestRange(read, begin, count), begin),
      });
      return bytes;
    },
    async close() {
      closing.abort();
    },
  };
}

interface Read {
  readonly url: string;
  readonly file: RemoteFile;
  readonly patience: Patience;
  readonly signal: AbortSignal;
}

async function requestRange(read: Read, begin: number, length: number): Promise<Response> {
  const { url, file, patience, signal } = read;
  const response = await httpRequest({
    url,
    method: 'GET',
    headers: {
      range: `bytes=${begin}-${begin + length - 1}`,
      'accept-encoding': 'identity',
      ...condition(file.version),
    },
    signal,
    patience,
    name: url,
    accept: [412, 416],
    codeOf: codeOfHttp,
  });
  try {
    checkAnswer(response, read, { begin, length });
    return response;
  } catch (error) {
    await response.body?.cancel();
    throw error;
  }
}

/** Weak validators say nothing about bytes, so nothing is asked by them; they are compared. */
function condition(version: string): Record<string, string> {
  if (version.startsWith('etag:"')) return { 'if-match': version.slice('etag:'.length) };
  if (!version.startsWith('modified:')) return {};
  return { 'if-unmodified-since': version.slice('modified:'.length) };
}

function checkAnswer(
  { status, headers }: Response,
  { url, file }: Read,
  asked: { readonly begin: number; readonly length: number },
): void {
  const version = versionIn(headers);
  const isOther = version !== undefined && file.version !== NO_VERSION && version !== file.version;
  if (status === 412 || status === 416 || isOther) throw changed(url);
  if (!['', 'identity'].includes(headers.get('content-encoding') ?? '')) {
    throw unusable(url, 'compresses the bytes although told not to');
  }
  if (status === 206) {
    const header = headers.get('content-range') ?? '';
    const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header) ?? [];
    if (total !== undefined && total !== '*' && Number(total) !== file.size) throw changed(url);
    const isAsked =
      Number(first) === asked.begin && Number(last) === asked.begin + asked.length - 1;
    if (!isAsked) throw unusable(url, 'sends another byte range than asked for');
    return;
  }
  const length = headers.get('content-length');
  if (length !== null && Number(length) !== file.size) throw changed(url);
  if (status !== 200 || (file.size > WHOLE_FILE_BYTES_MAX && asked.length !== file.size)) {
    throw unusable(url, 'ignores byte ranges');
  }
}

/** The body, without the beginning of a whole file that nobody asked for. */
async function* bodyFrom(response: Response, begin: number): AsyncIterable<Uint8Array> {
  let skip = response.status === 200 ? begin : 0;
  for await (const chunk of response.body ?? []) {
    const rest = chunk.subarray(Math.min(skip, chunk.byteLength));
    skip -= chunk.byteLength - rest.byteLength;
    if (rest.byteLength > 0) yield rest;
  }
}

function changed(url: string): WeldlineError {
  return new WeldlineError(
    'source.changed',
    `${url} is no longer the file that was there when the model was found. Run again to take the ` +
      'model as it is now; what must not change belongs at an address of its own.',
  );
}

function unusable(url: string, what: string): WeldlineError {
  return new WeldlineError(
    'source.unavailable',
    `${url}: the server ${what}. Serve it from a server that answers byte ranges, or fetch the ` +
      'model and name its directory.',
  );
}
