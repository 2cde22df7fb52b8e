import { WeldlineError } from '../engine/errors.ts';
import { type HubConnection, hubUrl, patienceOf } from './hub-connection.ts';
import { badResponse, fileChanged, type HubRequestFacts, hubFailure } from './hub-failures.ts';
import { blobName, type HubFile, type HubModel } from './hub-model.ts';
import { encodeHubPath } from './hub-path.ts';
import { etagValue, type HubAnswer, hubRequest } from './hub-request.ts';
import { withRetries, withStallTimer } from './hub-retry.ts';

/** Receives the bytes of a range in order, each exactly once, whatever happens to connections. */
export type RangeSink = (chunk: Uint8Array) => void | Promise<void>;

export interface HubFileReader {
  /** `hf://org/name@commit/path`. */
  readonly name: string;
  /**
   * Streams `[offset, offset + length)` to `sink`, going on at the byte reached when a connection
   * fails. The range must not be empty and must lie within the file.
   * @throws WeldlineError `hub.*`, or the abort reason of `signal`
   */
  stream(offset: number, length: number, sink: RangeSink, signal?: AbortSignal): Promise<void>;
}

/** Reads one file of one commit by range; any number of ranges at a time. */
export function hubFileReader(
  connection: HubConnection,
  model: Pick<HubModel, 'repo' | 'commit'>,
  file: HubFile,
): HubFileReader {
  const { repo, commit } = model;
  const facts: HubRequestFacts = {
    name: `hf://${repo}@${commit}/${file.path}`,
    repo,
    page: hubUrl(connection, repo).href,
    hasToken: Boolean(connection.token),
  };
  const address = hubUrl(connection, `${repo}/resolve/${commit}/${encodeHubPath(file.path)}`);
  const patience = patienceOf(connection);
  // The storage link of the last success. The hub allows a few thousand look-ups in five minutes;
  // asking it again for every range of a 140 GB model would use them up.
  let storageLink: URL | undefined;

  async function openRange(offset: number, end: number, signal: AbortSignal): Promise<Response> {
    const headers = { range: `bytes=${offset}-${end - 1}`, 'accept-encoding': 'identity' };
    const ask = (url: URL) => hubRequest(connection, { url, name: facts.name, headers, signal });
    let answer = await ask(storageLink ?? address);
    if (storageLink !== undefined && !answer.response.ok) {
      // Links expire, after an hour or less.
      storageLink = undefined;
      await answer.response.body?.cancel();
      answer = await ask(address);
    }
    try {
      checkAnswer(answer, file, facts, offset, end);
    } catch (error) {
      await answer.response.body?.cancel();
      throw error;
    }
    storageLink = answer.url.origin === address.origin ? undefined : answer.url;
    return answer.response;
  }

  return {
    name: facts.name,
    async stream(offset, length, sink, signal) {
      const end = offset + length;
      let position = offset;
      const stall = { timeoutMs: patience.stallTimeoutMs, signal, name: facts.name };
      const attempt = () =>
        withStallTimer(stall, async (attemptSignal, alive) => {
          const response = await openRange(position, end, attemptSignal);
          for await (const chunk of response.body ?? []) {
            alive();
            if (position + chunk.byteLength > end) throw badResponse(facts.name, 'sends too much');
            await sink(chunk);
            position += chunk.byteLength;
            alive();
          }
          if (position < end) throw cutShort(facts.name, position, end);
        });
      await withRetries({ patience, signal, bytesMoved: () => position - offset }, async () => {
        // A connection can break after the last byte.
        if (position === end) return;
        try {
          await attempt();
        } catch (error) {
          storageLink = undefined;
          throw error;
        }
      });
    },
  };
}

function checkAnswer(
  answer: HubAnswer,
  file: HubFile,
  facts: HubRequestFacts,
  offset: number,
  end: number,
): void {
  const { response, identity } = answer;
  const { status, headers } = response;
  const expected = blobName(file);
  // Storage may use an ETag of its own kind (often an MD5): only one of our kind can contradict.
  const etag = identity ?? etagValue(headers.get('etag'));
  const comparable = etag !== undefined && etag.length === expected.length;
  if ((response.ok || status === 416) && comparable && etag !== expected) {
    throw fileChanged(facts.name, 'offers another version of it (its ETag differs)');
  }
  if (status === 416) throw rangeRefused(headers.get('content-range'), file, facts.name);
  if (!response.ok) throw hubFailure(response, facts);
  if (!['', 'identity'].includes(headers.get('content-encoding') ?? '')) {
    throw badResponse(facts.name, 'compresses the bytes although told not to');
  }
  if (status === 200) {
    checkWholeFile(headers.get('content-length'), file, facts.name, offset, end);
    return;
  }
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  if (status !== 206 || range === null) throw badResponse(facts.name, 'ignores byte ranges');
  if (range[3] !== '*' && Number(range[3]) !== file.size) {
    throw fileChanged(facts.name, `has ${range[3]} bytes of it instead of ${file.size}`);
  }
  if (Number(range[1]) !== offset || Number(range[2]) !== end - 1) {
    throw badResponse(facts.name, 'sends another byte range than asked for');
  }
}

/** A plain 200 is fine when the whole file was asked for: small servers answer so. */
function checkWholeFile(
  contentLength: string | null,
  file: HubFile,
  name: string,
  offset: number,
  end: number,
): void {
  if (offset !== 0 || end !== file.size) throw badResponse(name, 'ignores byte ranges');
  if (contentLength !== null && Number(contentLength) !== file.size) {
    throw fileChanged(name, `has ${contentLength} bytes of it instead of ${file.size}`);
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

function cutShort(name: string, position: number, end: number): WeldlineError {
  return new WeldlineError(
    'hub.unavailable',
    `The connection for ${name} ended ${end - position} bytes early, at byte ${position}. What was ` +
      'read is kept; check the network or proxy and run again.',
  );
}
