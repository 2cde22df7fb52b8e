import { WeldlineError } from '../../engine/errors.ts';

/** A page of a tree holds a thousand entries of some 300 bytes. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024;

export function nameOf(repo: string): string {
  return `hf://${repo}`;
}

/** For answers that break the protocol: proxies and half-finished mirrors do. */
export function notHub(name: string, what: string): WeldlineError {
  return new WeldlineError(
    'publish.rejected',
    `${name}: the server ${what}, unlike a hub. Check HF_ENDPOINT and the proxy.`,
  );
}

/** An answer that nobody needs. */
export async function cancelled(response: Response): Promise<undefined> {
  await response.body?.cancel();
  return undefined;
}

export async function readJson(response: Response, name: string): Promise<unknown> {
  const text = await readText(response, name);
  try {
    return JSON.parse(text);
  } catch {
    throw notHub(name, 'answers with something that is not JSON');
  }
}

export async function readText(response: Response, name: string): Promise<string> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of response.body ?? []) {
    bytes += piece.byteLength;
    if (bytes > ANSWER_BYTES_MAX) throw notHub(name, 'answers with more than can be read');
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

export function isCommit(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{40}$/.test(value);
}
