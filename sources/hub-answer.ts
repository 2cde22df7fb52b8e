import { WeldlineError } from '../engine/errors.ts';
import type { ByteRange } from './byte-range.ts';
import { badResponse, fileChanged, type HubRequestFacts, hubFailure } from './hub-failures.ts';
import { blobName, type HubFile } from './hub-model.ts';
import { etagValue, type HubAnswer } from './hub-request.ts';

/**
 * Some proxies and small servers ignore ranges and send the whole file. Up to this size that is
 * taken and cut; beyond it every range would cost the whole file again.
 */
const WHOLE_FILE_BYTES_MAX = 16 * 1024 * 1024;

/** What storage hosts answer to links that are expired, not yet valid or garbled by a proxy. */
const LINK_REFUSALS: ReadonlySet<number> = new Set([400, 401, 403, 404, 410]);

export interface ExpectedAnswer {
  readonly file: HubFile;
  readonly facts: HubRequestFacts;
  readonly hubOrigin: string;
  readonly range: ByteRange;
}

/**
 * Checks that an answer holds the range asked for of the file that the commit pins.
 * @returns the offset in the file at which the body starts
 * @throws WeldlineError for anything else
 */
export function checkAnswer(answer: HubAnswer, expected: ExpectedAnswer): number {
  const { response } = answer;
  const { file, facts, range } = expected;
  checkIdentity(answer, expected);
  if (response.status === 416) {
    throw rangeRefused(response.headers.get('content-range'), file, facts.name);
  }
  if (!response.ok) throw refusal(answer, expected);
  if (!['', 'identity'].includes(response.headers.get('content-encoding') ?? '')) {
    throw badResponse(facts.name, 'compresses the bytes although told not to');
  }
  if (response.status === 200) {
    checkWholeFile(response.headers.get('content-length'), file, facts.name, range);
    return 0;
  }
  checkContentRange(response, file, facts.name, range);
  return range.offset;
}

/**
 * The hub names the file in its own answers, by the digest it is pinned by. Storage hosts have ETags
 * of their own kinds, which say nothing about it.
 */
function checkIdentity(answer: HubAnswer, expected: ExpectedAnswer): void {
  const { response, url, identity } = answer;
  if (!response.ok && response.status !== 416) return;
  const fromHub = url.origin === expected.hubOrigin;
  const etag = identity ?? (fromHub ? etagValue(response.headers.get('etag')) : undefined);
  const pinned = blobName(expected.file);
  if (etag !== undefined && etag.length === pinned.length && etag !== pinned) {
    throw fileChanged(expected.facts.name, 'offers another version of it (its ETag differs)');
  }
}

function refusal(answer: HubAnswer, expected: ExpectedAnswer): WeldlineError {
  const { response, url } = answer;
  const { facts, hubOrigin } = expected;
  const byStorage = url.origin !== hubOrigin && !response.headers.has('x-error-code');
  if (!byStorage || !LINK_REFUSALS.has(response.status)) return hubFailure(response, facts);
  return new WeldlineError(
    'hub.unavailable',
    `The storage host refuses the link to ${facts.name} that the hub has just made ` +
      `(${response.status}). Check that this machine's clock is right and that no proxy changes ` +
      'addresses; then run again.',
    { details: { status: response.status } },
  );
}

function checkContentRange(
  response: Response,
  file: HubFile,
  name: string,
  asked: ByteRange,
): void {
  const header = response.headers.get('content-range') ?? '';
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header) ?? [];
  if (response.status !== 206 || total === undefined) {
    throw badResponse(name, 'ignores byte ranges');
  }
  if (total !== '*' && Number(total) !== file.size) {
    throw fileChanged(name, `has ${total} bytes of it instead of ${file.size}`);
  }
  if (Number(first) !== asked.offset || Number(last) !== asked.offset + asked.length - 1) {
    throw badResponse(name, 'sends another byte range than asked for');
  }
}

function checkWholeFile(
  contentLength: string | null,
  file: HubFile,
  name: string,
  asked: ByteRange,
): void {
  if (contentLength !== null && Number(contentLength) !== file.size) {
    throw fileChanged(name, `has ${contentLength} bytes of it instead of ${file.size}`);
  }
  if (asked.length !== file.size && file.size > WHOLE_FILE_BYTES_MAX) {
    throw badResponse(name, 'ignores byte ranges');
  }
}

function rangeRefused(contentRange: string | null, file: HubFile, name: string): WeldlineError {
  const total = /^bytes \*\/(\d+)$/.exec(contentRange ?? '')?.[1];
  return fileChanged(
    name,
    total === undefined || Number(total) === file.size
      ? 'refuses a byte range inside it (416)'
      : `has ${total} bytes of it instead of ${file.size}`,
  );
}
