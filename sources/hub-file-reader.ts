import { WeldlineError } from '../engine/errors.ts';
import type { ByteRange } from './byte-range.ts';
import { checkAnswer } from './hub-answer.ts';
import { type HubConnection, hubUrl, patienceOf } from './hub-connection.ts';
import { badResponse, type HubRequestFacts } from './hub-failures.ts';
import type { HubFile, HubModel } from './hub-model.ts';
import { encodeHubPath } from './hub-path.ts';
import { hubRequest } from './hub-request.ts';
import { withRetries, withStallTimer } from './hub-retry.ts';
import type { RangeReader } from './range-reader.ts';

/** Reads one file of one commit by range; any number of ranges at a time. */
export function hubFileReader(
  connection: HubConnection,
  model: Pick<HubModel, 'repo' | 'commit'>,
  file: HubFile,
): RangeReader {
  const name = `hf://${model.repo}@${model.commit}/${file.path}`;
  const patience = patienceOf(connection);
  const openRange = rangeOpener(connection, model, file, name);
  return {
    name,
    async stream(offset, length, sink, signal) {
      const end = offset + length;
      let position = offset;
      const attempt = (attemptSignal: AbortSignal, alive: () => void) =>
        openRange(
          { offset: position, length: end - position },
          attemptSignal,
          async (body, start) => {
            let skip = position - start;
            for await (const received of body) {
              // The rest of a whole file that nobody asked for.
              if (position === end) break;
              alive();
              const chunk = received.subarray(skip, skip + end - position);
              skip = Math.max(0, skip - received.byteLength);
              if (chunk.byteLength > 0) await sink(chunk);
              position += chunk.byteLength;
              alive();
            }
            if (position < end) throw cutShort(name, position, end);
          },
        );
      const stall = { timeoutMs: patience.stallTimeoutMs, signal, name };
      await withRetries({ patience, signal, bytesMoved: () => position - offset }, async () => {
        // A connection can break after the last byte.
        if (position < end) await withStallTimer(stall, attempt);
      });
    },
  };
}

type BodyReader = (body: AsyncIterable<Uint8Array>, start: number) => Promise<void>;

/** Opens a range and hands its body, with the offset at which that starts, to `read`. */
function rangeOpener(
  connection: HubConnection,
  model: Pick<HubModel, 'repo' | 'commit'>,
  file: HubFile,
  name: string,
): (range: ByteRange, signal: AbortSignal, read: BodyReader) => Promise<void> {
  const { repo, commit } = model;
  const page = hubUrl(connection, repo).href;
  const facts: HubRequestFacts = { name, repo, page, hasToken: Boolean(connection.token) };
  const address = hubUrl(connection, `${repo}/resolve/${commit}/${encodeHubPath(file.path)}`);
  // The storage link of the last success. The hub allows a few thousand look-ups in five minutes;
  // asking it again for every range of a 140 GB model would use them up.
  let storageLink: URL | undefined;

  return async (range, signal, read) => {
    const headers = {
      range: `bytes=${range.offset}-${range.offset + range.length - 1}`,
      'accept-encoding': 'identity',
    };
    const ask = (url: URL) => hubRequest(connection, { url, name, headers, signal });
    let answer = await ask(storageLink ?? address);
    if (storageLink !== undefined && !answer.response.ok) {
      // Links expire, after an hour or less.
      storageLink = undefined;
      await answer.response.body?.cancel();
      answer = await ask(address);
    }
    try {
      const start = checkAnswer(answer, { file, facts, hubOrigin: address.origin, range });
      if (answer.response.body === null) throw badResponse(name, 'sends no bytes');
      storageLink = answer.url.origin === address.origin ? undefined : answer.url;
      await read(answer.response.body, start);
    } catch (error) {
      storageLink = undefined;
      await answer.response.body?.cancel().catch(() => undefined);
      throw error;
    }
  };
}

function cutShort(name: string, position: number, end: number): WeldlineError {
  return new WeldlineError(
    'hub.unavailable',
    `The connection for ${name} ended ${end - position} bytes early, at byte ${position}. What was ` +
      'read is kept; check the network or proxy and run again.',
  );
}
