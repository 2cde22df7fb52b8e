/**
 * The content-addressed store behind Xet uploads, as far as a client needs it that sends what does
 * not compress: blocks (xorbs) of chunks, and shards that say which chunks make which file.
 * https://huggingface.co/docs/xet describes both formats.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Refused, readBody, sendJson } from './answers.ts';
import type { ObjectStore } from './object-store.ts';

const CHUNK_HEADER_BYTES = 8;
const SHARD_HEADER_BYTES = 48;
/** All records of a shard's list of files are of this size. */
const RECORD_BYTES = 48;
const HAS_VERIFICATION = 0x80000000;
const HAS_SHA256 = 0x40000000;

export class XetStore {
  readonly #objects: ObjectStore;
  /** Repository by token. */
  readonly #tokens = new Map<string, string>();
  /** Chunks by the hash of their block. */
  readonly #blocks = new Map<string, readonly Buffer[]>();

  constructor(objects: ObjectStore) {
    this.#objects = objects;
  }

  /** Body of `GET /api/models/{repo}/xet-write-token/{revision}`. */
  tokenFor(repo: string, casUrl: string): object {
    const accessToken = randomUUID();
    this.#tokens.set(accessToken, repo);
    return { accessToken, casUrl, exp: Math.floor(Date.now() / 1000) + 3600 };
  }

  /** `POST /v1/xorbs/default/{hash}`, `POST /v1/shards`, `GET /v1/chunks/default/{hash}`. */
  async serve(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
    const repo = this.#tokens.get(token);
    if (repo === undefined) throw new Refused(401, 'Not a token of this store');
    const body = await readBody(request);
    const block = /^\/v1\/xorbs\/default\/([0-9a-f]{64})$/.exec(url.pathname)?.[1];
    if (block !== undefined) this.#blocks.set(block, chunksOf(body));
    else if (url.pathname === '/v1/shards') await this.#register(repo, body);
    // It knows no other files that a new one could share chunks with.
    else throw new Refused(404, 'No such chunk');
    sendJson(response, { was_inserted: true });
  }

  async #register(repo: string, shard: Buffer): Promise<void> {
    let at = SHARD_HEADER_BYTES;
    const next = (): Buffer => {
      at += RECORD_BYTES;
      return shard.subarray(at - RECORD_BYTES, at);
    };
    for (
      let header = next();
      !header.subarray(0, 32).every((byte) => byte === 0xff);
      header = next()
    ) {
      const flags = header.readUInt32LE(32);
      const terms = Array.from({ length: header.readUInt32LE(36) }, next);
      if (flags & HAS_VERIFICATION) at += terms.length * RECORD_BYTES;
      if (!(flags & HAS_SHA256)) throw new Refused(400, 'A file without its SHA-256');
      const content = terms.flatMap((term) => {
        const chunks = this.#blocks.get(hashOf(term));
        if (chunks === undefined) throw new Refused(400, 'A block is missing');
        return chunks.slice(term.readUInt32LE(40), term.readUInt32LE(44));
      });
      await this.#objects.receive(repo, hashOf(next()), each(content));
    }
  }
}

function chunksOf(block: Buffer): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < block.length; ) {
    const length = block.readUIntLE(at + 1, 3);
    if (block[at + 4] !== 0) throw new Refused(415, 'Compressed chunks are not read here');
    at += CHUNK_HEADER_BYTES;
    chunks.push(block.subarray(at, at + length));
    at += length;
  }
  return chunks;
}

/** Hashes are four numbers of 64 bits, lowest byte first. */
function hashOf(record: Buffer): string {
  const words = [0, 8, 16, 24].map((at) => Buffer.from(record.subarray(at, at + 8)).reverse());
  return Buffer.concat(words).toString('hex');
}

async function* each(chunks: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* chunks;
}
