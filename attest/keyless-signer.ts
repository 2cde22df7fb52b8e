import type { CiIdentity } from '../config/ci-identity.ts';
import { WeldlineError } from '../engine/errors.ts';
import { PAYLOAD_TYPE } from './envelope.ts';
import type { Signer } from './signer.ts';

/** Of Sigstore's servers, which answer at once or are not well. */
const TIMEOUT_MS = 30_000;
const RETRIES = 3;

const AUDIENCE = 'sigstore';

/** Another Sigstore than the public one. */
export interface SigstoreServers {
  readonly fulcioUrl?: string;
  readonly rekorUrl?: string;
  readonly timestampUrl?: string;
}

export interface KeylessOptions extends SigstoreServers {
  /** Undefined where the environment has none. */
  readonly identity: CiIdentity | undefined;
  readonly retries?: number;
}

/**
 * A signer without a key: Sigstore certifies a key that is thrown away afterwards for whoever the
 * CI job is, and logs what it signed.
 * @throws WeldlineError `attest.no-identity`, `attest.unavailable`
 */
export async function keylessSigner(options: KeylessOptions): Promise<Signer> {
  const { identity, retries = RETRIES } = options;
  const subject = subjectOf(await fetchToken(identity, retries));
  return {
    name: `${subject.name}, issuer ${subject.issuer}`,
    warnings: [],
    async sign(statement) {
      // A job's tokens live for minutes, so what preflight was given is no use after a merge.
      const identityToken = await fetchToken(identity, retries);
      subjectOf(identityToken);
      const { attest } = await import('sigstore');
      try {
        const bundle = await attest(statement, PAYLOAD_TYPE, {
          identityToken,
          ...{ retry: { retries }, timeout: TIMEOUT_MS },
          ...(options.fulcioUrl !== undefined && { fulcioURL: options.fulcioUrl }),
          ...(options.rekorUrl !== undefined && { rekorURL: options.rekorUrl }),
          ...(options.timestampUrl !== undefined && { tsaServerURL: options.timestampUrl }),
        });
        return JSON.stringify(bundle);
      } catch (error) {
        throw toSigningError(error);
      }
    },
  };
}

async function fetchToken(identity: CiIdentity | undefined, retries: number): Promise<string> {
  if (identity === undefined) {
    throw noIdentity('there is none here: signing without a key works in CI jobs only');
  }
  if ('token' in identity) return identity.token.reveal();
  for (let attempt = 0; ; attempt++) {
    try {
      return await requestToken(identity.requestUrl, identity.requestToken.reveal());
    } catch (error) {
      const isFinal = error instanceof WeldlineError && error.code !== 'attest.unavailable';
      if (isFinal || attempt >= retries) throw error;
    }
  }
}

/** https://docs.github.com/actions/reference/openid-connect-reference: how a job gets its token. */
async function requestToken(requestUrl: string, bearer: string): Promise<string> {
  if (!URL.canParse(requestUrl)) throw noIdentity('ACTIONS_ID_TOKEN_REQUEST_URL is no URL');
  const url = new URL(requestUrl);
  url.searchParams.set('audience', AUDIENCE);
  let response: Response;
  try {
    response = await fetch(url, {
      headers: { accept: 'application/json', authorization: `Bearer ${bearer}` },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw unavailable(`The token server of GitHub Actions (${url.host}) does not answer.`);
  }
  if (response.status >= 500 || response.status === 429) {
    throw unavailable(`The token server of GitHub Actions answers ${response.status}.`);
  }
  const body: unknown = await response.json().catch(() => undefined);
  const token = (body as { value?: unknown } | undefined)?.value;
  if (response.ok && typeof token === 'string') return token;
  throw noIdentity(`GitHub Actions gives this job no token (HTTP ${response.status})`);
}

/** What a token says of whom it was given to. It is Fulcio that checks it. */
function subjectOf(token: string): { name: string; issuer: string } {
  let claims: Record<string, unknown> | null = null;
  try {
    const text = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString();
    claims = JSON.parse(text) as Record<string, unknown> | null;
  } catch {
    // No text of it goes into an error: whoever reads it could sign.
  }
  if (typeof claims !== 'object' || claims === null) throw noIdentity('its token is no JWT');
  const { exp, aud, email, sub, iss } = claims;
  if (typeof exp === 'number' && exp * 1000 < Date.now()) throw noIdentity('its token has expired');
  if (aud !== undefined && ![aud].flat().includes(AUDIENCE)) {
    throw noIdentity(`its token is for another audience than "${AUDIENCE}"`);
  }
  const name = email ?? sub;
  if (typeof name !== 'string' || typeof iss !== 'string') {
    throw noIdentity('its token does not say whom it was given to');
  }
  return { name, issuer: iss };
}

/** Errors of the library are not shown: one of them has the token in its text. */
function toSigningError(error: unknown): WeldlineError {
  const { code, cause } = error as { code?: unknown; cause?: { statusCode?: unknown } };
  const status = typeof cause?.statusCode === 'number' ? cause.statusCode : undefined;
  const answered = status === undefined ? 'does not answer' : `answers HTTP ${status}`;
  if (code === 'CA_CREATE_SIGNING_CERTIFICATE_ERROR') {
    const isRefused = status !== undefined && status >= 400 && status < 500 && status !== 429;
    return isRefused
      ? noIdentity(`Sigstore's certificate authority refuses it (HTTP ${status})`)
      : unavailable(`Sigstore's certificate authority ${answered}.`);
  }
  if (code === 'TLOG_CREATE_ENTRY_ERROR' || code === 'TLOG_FETCH_ENTRY_ERROR') {
    return unavailable(`Sigstore's transparency log ${answered}.`);
  }
  if (code === 'TSA_CREATE_TIMESTAMP_ERROR') {
    return unavailable(`Sigstore's timestamp authority ${answered}.`);
  }
  if (String(code).startsWith('IDENTITY_TOKEN')) return noIdentity('its token cannot be read');
  return unavailable(`Sigstore gives no signature (${String(code ?? 'unknown error')}).`);
}

function noIdentity(problem: string): WeldlineError {
  return new WeldlineError(
    'attest.no-identity',
    `sign: keyless needs the identity of a CI job, but ${problem}. On GitHub Actions give the job ` +
      '"permissions: id-token: write"; elsewhere set SIGSTORE_ID_TOKEN to an OIDC token for the ' +
      `audience "${AUDIENCE}"; or use sign: key.`,
  );
}

function unavailable(problem: string): WeldlineError {
  return new WeldlineError('attest.unavailable', `${problem} Try again later.`);
}
