import { WeldlineError } from '../engine/errors.ts';

/** What an HTTP status is called; a broken connection is called as 503, a stalled one as 408. */
export type CodeOf = (status: number) => WeldlineError['code'];

/** Enough for a server to say what is wrong, too little to fill a log. */
const ANSWER_CHARACTERS_MAX = 300;
/** More of an error's body is not read. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** Whether the same request may succeed in seconds. */
export function isTransient(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

/**
 * Milliseconds that a server asks to wait: `Retry-After` in seconds or as a date.
 * Undefined without one that can be read.
 */
export function retryAfterMs(headers: Headers, nowMs: number): number | undefined {
  const after = headers.get('retry-after')?.trim();
  if (after === undefined) return undefined;
  if (/^\d{1,9}$/.test(after)) return Number(after) * 1000;
  const dateMs = Date.parse(after);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}

/** The error for an answer that is not a success; quotes what the server says, less the secrets. */
export async function statusFailure(
  response: Response,
  facts: { readonly name: string; readonly codeOf: CodeOf; readonly headers: Headers },
): Promise<WeldlineError> {
  const { status } = response;
  const waitMs = retryAfterMs(response.headers, Date.now());
  const said = withoutSecrets(messageOf(await startOf(response)), facts.headers);
  return new WeldlineError(
    facts.codeOf(status),
    `${facts.name}: the server answers ${status}${said && ` (${said})`}. ${remedyOf(status)}`,
    { details: { status, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) } },
  );
}

function remedyOf(status: number): string {
  if (status === 401) return 'Check the credentials for this server: none, or not valid ones.';
  if (status === 403) return 'Check what the credentials for this server are allowed to do.';
  if (status === 404) return 'Check the name; some servers also hide what one may not see.';
  if (status === 409 || status === 412) return 'Something else is there, or came in between.';
  if (status === 429) return 'Too many requests: run again in some minutes.';
  return isTransient(status)
    ? "Look at the server's logs or status page, and run again."
    : 'weldline does not expect this: check the address, and what the server is.';
}

async function startOf(response: Response): Promise<string> {
  let text = '';
  let bytes = 0;
  const decoder = new TextDecoder();
  try {
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk, { stream: true });
      bytes += chunk.byteLength;
      if (bytes >= ANSWER_BYTES_MAX) break;
    }
  } catch {
    // The status says enough.
  }
  return text;
}

/** What error documents of registries, hubs and MLflow call their sentence. */
function messageOf(text: string): string {
  try {
    const { errors, error, error_code, message, detail } = JSON.parse(text);
    const [first] = Array.isArray(errors) ? errors : [];
    const found = [first?.code ?? error_code, first?.message ?? message ?? error ?? detail];
    return found.filter((part) => typeof part === 'string').join(': ');
  } catch {
    return '';
  }
}

/** Servers that repeat a request in their answer must not bring its credentials into logs. */
function withoutSecrets(text: string, headers: Headers): string {
  const [scheme, value = ''] = (headers.get('authorization') ?? '').split(' ', 2);
  const secrets = [value];
  if (scheme?.toLowerCase() === 'basic') {
    const pair = Buffer.from(value, 'base64').toString();
    secrets.push(pair.slice(pair.indexOf(':') + 1));
  }
  let clean = text.replace(/[\p{Cc}\p{Cf}]+/gu, ' ');
  for (const secret of secrets) if (secret !== '') clean = clean.replaceAll(secret, '[secret]');
  return clean.slice(0, ANSWER_CHARACTERS_MAX).trim();
}

/**
 * `fetch` reports a broken connection as a TypeError with a cause, and a cut body as one without a
 * system's code; mistakes in code have none.
 */
export function connectionFailure(error: unknown, name: string, codeOf: CodeOf): unknown {
  if (!(error instanceof TypeError) || error.cause === undefined) return error;
  const cause = error.cause as { code?: unknown; message?: unknown } | null;
  const reason = String(cause?.code ?? cause?.message ?? error.message);
  const isTls = /CERT|TLS|SSL|VERIFY|SIGNED/.test(reason);
  const remedy = isTls
    ? 'Name the authority of its certificate in NODE_EXTRA_CA_CERTS; for a server of plain HTTP say so.'
    : 'Check the address, the network and the proxy, and run again.';
  return new WeldlineError(codeOf(503), `${name}: the connection failed (${reason}). ${remedy}`);
}

export function stalled(name: string, timeoutMs: number, codeOf: CodeOf): WeldlineError {
  return new WeldlineError(
    codeOf(408),
    `${name}: nothing moved for ${timeoutMs / 1000} s. Check the network, the proxy and the ` +
      'server, and run again.',
  );
}
