import { WeldlineError } from '../../engine/errors.ts';
import { httpRequest } from '../http.ts';
import type { CodeOf } from '../http-failures.ts';
import type { Patience } from '../patience.ts';
import type { RegistryCredentials } from './docker-credentials.ts';

export interface AuthorizationOptions {
  /** Of the registry. */
  readonly origin: string;
  /** As people know it. */
  readonly registry: string;
  /** Asked for when the registry first wants to know who is there. */
  readonly credentials: () => Promise<RegistryCredentials | undefined>;
  readonly patience: Patience;
  readonly codeOf: CodeOf;
}

/** Where the token server does not say, by the registry's documentation. */
const TOKEN_SECONDS = 60;
/** Of its life in which a token is used: it must outlast the request that it goes with. */
const TOKEN_SHARE = 0.7;

/** Answers what a registry asks of those who ask it: Basic, or tokens of the server that it names. */
export interface RegistryAuthorization {
  /**
   * The header that did last time for this access, made anew in time where tokens run out: a large
   * body that is refused is sent in vain. Undefined before the first challenge.
   * @throws WeldlineError by `codeOf`, of the token server
   */
  current(access: string, signal: AbortSignal): Promise<string | undefined>;
  /**
   * The header that answers a challenge; undefined where there are no credentials for one.
   * @param challenge `WWW-Authenticate`
   * @param access what is remembered under: `pull`, `pull,push`, …
   * @throws WeldlineError by `codeOf`, of the token server
   */
  answer(
    challenge: string | null,
    access: string,
    signal: AbortSignal,
  ): Promise<string | undefined>;
}

export function registryAuthorization(options: AuthorizationOptions): RegistryAuthorization {
  const known = new Map<string, Grant & { readonly challenge: string }>();
  let loading: Promise<RegistryCredentials | undefined> | undefined;
  const load = () => {
    loading ??= options.credentials();
    return loading;
  };
  const answer = async (challenge: string, access: string, signal: AbortSignal) => {
    const grant = await answerChallenge(options, challenge, load, signal);
    if (grant === undefined) known.delete(access);
    else known.set(access, { ...grant, challenge });
    return grant?.header;
  };
  return {
    async current(access, signal) {
      const grant = known.get(access);
      if (grant === undefined || performance.now() < grant.until) return grant?.header;
      return answer(grant.challenge, access, signal);
    },
    answer: (challenge, access, signal) => answer(challenge ?? '', access, signal),
  };
}

/** A header, and until when it is good, by the monotonic clock in milliseconds. */
interface Grant {
  readonly header: string;
  readonly until: number;
}

async function answerChallenge(
  options: AuthorizationOptions,
  challenge: string,
  load: () => Promise<RegistryCredentials | undefined>,
  signal: AbortSignal,
): Promise<Grant | undefined> {
  // Some registries offer both.
  const [, bearer] = /\bBearer\s+(.*)$/is.exec(challenge) ?? [];
  if (bearer !== undefined) {
    const parameters = new Map<string, string>();
    for (const [, name = '', value = ''] of bearer.matchAll(/(\w+)="([^"]*)"/g)) {
      if (!parameters.has(name)) parameters.set(name, value);
    }
    return fetchToken(options, parameters, await load(), signal);
  }
  if (!/^\s*Basic\b/i.test(challenge)) return undefined;
  const credentials = await load();
  if (credentials === undefined || !('username' in credentials)) return undefined;
  return { header: basic(credentials), until: Number.POSITIVE_INFINITY };
}

/** The token flow of the CNCF registry's documentation, and OAuth 2's where there is an identity token. */
async function fetchToken(
  options: AuthorizationOptions,
  parameters: ReadonlyMap<string, string>,
  credentials: RegistryCredentials | undefined,
  signal: AbortSignal,
): Promise<Grant> {
  const { origin, registry, patience, codeOf } = options;
  const name = `the token server of ${registry}`;
  const realm = realmOf(parameters.get('realm') ?? '', origin, name, codeOf);
  const asked = new URLSearchParams();
  for (const key of ['service', 'scope'] as const) {
    const value = parameters.get(key);
    if (value !== undefined) asked.append(key, value);
  }
  const common = { signal, patience, name, codeOf };
  let response: Response;
  if (credentials !== undefined && 'identityToken' in credentials) {
    asked.append('grant_type', 'refresh_token');
    asked.append('refresh_token', credentials.identityToken.reveal());
    asked.append('client_id', 'weldline');
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    response = await httpRequest({
      ...common,
      url: realm,
      method: 'POST',
      headers,
      body: asked.toString(),
      accept: [400, 401, 403],
    });
    // What it says is not repeated: the token may be in it.
    if (!response.ok) throw refused(name, response.status, codeOf);
  } else {
    for (const [key, value] of asked) realm.searchParams.append(key, value);
    const headers = credentials && { authorization: basic(credentials) };
    response = await httpRequest({
      ...common,
      url: realm,
      method: 'GET',
      ...(headers && { headers }),
    });
  }
  const answer = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  const { token = answer['access_token'], expires_in: seconds } = answer;
  if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token)) {
    const lifeMs = (typeof seconds === 'number' ? seconds : TOKEN_SECONDS) * 1000;
    return { header: `Bearer ${token}`, until: performance.now() + lifeMs * TOKEN_SHARE };
  }
  throw new WeldlineError(codeOf(401), `${name} gives no token. Check its address and its logs.`);
}

function refused(name: string, status: number, codeOf: CodeOf): WeldlineError {
  return new WeldlineError(
    codeOf(401),
    `${name} refuses the identity token (${status}). Log in to the registry again (docker login).`,
  );
}

/** Passwords go where the registry says; not in the clear, if the registry itself is not. */
function realmOf(realm: string, origin: string, name: string, codeOf: CodeOf): URL {
  const url = URL.canParse(realm) ? new URL(realm) : undefined;
  const isFine =
    url?.protocol === 'https:' || (url?.protocol === 'http:' && origin.startsWith('http:'));
  if (url !== undefined && isFine && url.username === '' && url.password === '') return url;
  throw new WeldlineError(
    codeOf(401),
    `${name} is to be asked at an address that weldline sends no password to: the registry must ` +
      'name one of HTTPS, without credentials.',
  );
}

function basic(credentials: Extract<RegistryCredentials, { username: string }>): string {
  const { username, password } = credentials;
  return `Basic ${Buffer.from(`${username}:${password.reveal()}`).toString('base64')}`;
}
