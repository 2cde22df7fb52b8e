import { authorizationFor, type HubConnection } from './hub-connection.ts';
import { badResponse } from './hub-failures.ts';

/** A renamed repository, a mirror and a storage host make three. */
const REDIRECTS_MAX = 5;

const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export interface HubAnswer {
  readonly response: Response;
  /** Where the response came from after redirects. May be a signed link: never put it in a message. */
  readonly url: URL;
  /** The file's identity as told by the hub itself: sha256 (LFS) or git blob sha1, if it told one. */
  readonly identity: string | undefined;
}

export interface HubRequest {
  readonly url: URL;
  readonly name: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/**
 * One GET, following redirects by hand so that each hop gets the Authorization header only if it
 * goes to the hub. Answers of any status are returned, not thrown.
 * @throws WeldlineError `hub.bad-response` for a redirect that leads nowhere or never ends
 */
export async function hubRequest(
  connection: HubConnection,
  request: HubRequest,
): Promise<HubAnswer> {
  const get = connection.fetch ?? globalThis.fetch;
  let url = request.url;
  let identity: string | undefined;
  for (let hop = 0; hop <= REDIRECTS_MAX; hop += 1) {
    const response = await get(url, {
      headers: {
        'user-agent': 'weldline',
        ...request.headers,
        ...authorizationFor(connection, url),
      },
      redirect: 'manual',
      signal: request.signal,
    });
    // On the hop to storage the hub names the file in its own headers; storage's ETag is its own.
    identity = linkedIdentity(response.headers) ?? identity;
    if (!REDIRECT_STATUSES.has(response.status)) return { response, url, identity };
    await response.body?.cancel();
    url = redirectTarget(response, url, request.name);
  }
  throw badResponse(request.name, `redirects more than ${REDIRECTS_MAX} times`);
}

function redirectTarget(response: Response, from: URL, name: string): URL {
  const location = response.headers.get('location') ?? '';
  if (location === '' || !URL.canParse(location, from.href)) {
    throw badResponse(name, 'redirects without saying where to');
  }
  const target = new URL(location, from);
  if ((target.protocol !== 'https:' && target.protocol !== 'http:') || target.username !== '') {
    throw badResponse(name, 'redirects to an address that cannot be fetched');
  }
  return target;
}

function linkedIdentity(headers: Headers): string | undefined {
  return etagValue(headers.get('x-linked-etag'));
}

/** `W/"abc"` and `"abc"` → `abc`. */
export function etagValue(header: string | null): string | undefined {
  const value = header?.replace(/^W\//, '').replace(/^"|"$/g, '');
  return value === '' ? undefined : value;
}
