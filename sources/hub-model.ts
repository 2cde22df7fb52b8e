import { WeldlineError } from '../engine/errors.ts';
import { type HubConnection, hubUrl, patienceOf } from './hub-connection.ts';
import { badResponse, type HubRequestFacts, hubFailure } from './hub-failures.ts';
import { checkHubPath } from './hub-path.ts';
import { hubRequest } from './hub-request.ts';
import { withRetries, withStallTimer } from './hub-retry.ts';

export interface HubFile {
  readonly path: string;
  /** Size in bytes of the content, not of a Git LFS pointer. */
  readonly size: number;
  /** Digest of the content, for files in LFS or Xet storage: all weights. */
  readonly sha256?: string;
  /** Git's blob id (sha1 over a header and the content), for all other files. */
  readonly gitSha1?: string;
}

export interface HubModel {
  readonly repo: string;
  /** As asked for: a branch, tag or commit. */
  readonly revision: string;
  /** The commit it names now: 40 hex digits. */
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** A page of a tree holds a thousand entries of some 300 bytes. */
const JSON_BYTES_MAX = 32 * 1024 * 1024;

/** 200,000 files: the hub advises against more than 100,000 in a repository. */
const PAGES_MAX = 200;

const COMMIT = /^[0-9a-f]{40}$/;

export interface ResolveHubModelOptions {
  readonly repo: string;
  readonly revision: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Pins a revision to its commit and lists the files of that commit.
 * @throws WeldlineError `hub.not-found`, `hub.unauthorized`, `hub.gated`, `hub.rate-limited`,
 *   `hub.unavailable`, `hub.stalled`, `hub.bad-response`, `hub.unsafe-path`
 */
export async function resolveHubModel(
  connection: HubConnection,
  options: ResolveHubModelOptions,
): Promise<HubModel> {
  const { repo, revision } = options;
  const commit = COMMIT.test(revision) ? revision : await commitOf(connection, options);
  const files: HubFile[] = [];
  const seen = new Set<string>();
  let next: URL | undefined = hubUrl(
    connection,
    `api/models/${repo}/tree/${commit}?recursive=true`,
  );
  for (let page = 0; next !== undefined; page += 1) {
    if (page === PAGES_MAX) throw badResponse(`hf://${repo}@${commit}`, 'lists files without end');
    const answer = await getJson(connection, next, { ...options, revision: commit });
    for (const file of treeFiles(answer.value, `hf://${repo}@${commit}`)) {
      if (seen.has(file.path)) throw badResponse(`hf://${repo}`, `lists ${file.path} twice`);
      seen.add(file.path);
      files.push(file);
    }
    next = nextPage(answer.link, answer.url);
  }
  return { repo, revision, commit, files };
}

async function commitOf(
  connection: HubConnection,
  options: ResolveHubModelOptions,
): Promise<string> {
  const { repo, revision } = options;
  const url = hubUrl(connection, `api/models/${repo}/revision/${encodeURIComponent(revision)}`);
  const { value } = await getJson(connection, url, options);
  const sha = (value as { sha?: unknown } | null)?.sha;
  if (typeof sha !== 'string' || !COMMIT.test(sha)) {
    throw badResponse(`hf://${repo}@${revision}`, 'names no commit');
  }
  return sha;
}

interface JsonAnswer {
  readonly value: unknown;
  readonly link: string | null;
  readonly url: URL;
}

async function getJson(
  connection: HubConnection,
  url: URL,
  options: ResolveHubModelOptions,
): Promise<JsonAnswer> {
  const name = `hf://${options.repo}@${options.revision}`;
  const facts: HubRequestFacts = {
    name,
    repo: options.repo,
    page: hubUrl(connection, options.repo).href,
    hasToken: Boolean(connection.token),
  };
  const patience = patienceOf(connection);
  const stall = { timeoutMs: patience.stallTimeoutMs, signal: options.signal, name };
  return withRetries({ patience, signal: options.signal }, () =>
    withStallTimer(stall, async (signal, alive) => {
      const answer = await hubRequest(connection, { url, name, signal });
      if (!answer.response.ok) {
        await answer.response.body?.cancel();
        throw hubFailure(answer.response, facts);
      }
      const text = await boundedText(answer.response, name, alive);
      return {
        value: parseJson(text, name),
        link: answer.response.headers.get('link'),
        url: answer.url,
      };
    }),
  );
}

async function boundedText(response: Response, name: string, alive: () => void): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    alive();
    bytes += chunk.byteLength;
    if (bytes > JSON_BYTES_MAX) throw badResponse(name, 'answers with a listing too long to read');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw badResponse(name, 'answers with something that is not JSON');
  }
}

function treeFiles(page: unknown, name: string): HubFile[] {
  if (!Array.isArray(page)) throw badResponse(name, 'answers with something that is not a listing');
  return page.filter((entry) => entry?.type === 'file').map((entry) => treeFile(entry, name));
}

function treeFile(entry: Record<string, unknown>, name: string): HubFile {
  const lfs = entry['lfs'] as { oid?: unknown; size?: unknown } | null | undefined;
  const path = entry['path'];
  const size = lfs?.size ?? entry['size'];
  if (typeof path !== 'string') throw badResponse(name, 'lists a file without a path');
  checkHubPath(path);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw badResponse(`${name}/${path}`, 'gives no size');
  }
  const digest = lfs ? lfs.oid : entry['oid'];
  const pattern = lfs ? /^[0-9a-f]{64}$/ : COMMIT;
  // The digest becomes a file name in the cache and is what the content is checked against.
  if (typeof digest !== 'string' || !pattern.test(digest)) {
    throw badResponse(`${name}/${path}`, 'gives no digest');
  }
  return lfs ? { path, size, sha256: digest } : { path, size, gitSha1: digest };
}

/** The address of the next page from `Link: <…>; rel="next"`. */
function nextPage(link: string | null, from: URL): URL | undefined {
  const target = /<([^>]*)>\s*;\s*rel="?next"?/.exec(link ?? '')?.[1];
  if (target === undefined) return undefined;
  return URL.canParse(target, from.href) ? new URL(target, from) : undefined;
}

/** What the file is called in the cache, which is also the ETag the hub gives it. */
export function blobName(file: HubFile): string {
  const name = file.sha256 ?? file.gitSha1;
  if (name === undefined) {
    throw new WeldlineError(
      'internal.bug',
      `This is a bug in weldline: ${file.path} has no digest`,
    );
  }
  return name;
}
