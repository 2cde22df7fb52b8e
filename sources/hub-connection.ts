/**
 * How to reach a hub: where, as whom, and how patiently. Everything comes in as a value, so that
 * nothing in `sources/` reads the environment and tests can set every limit.
 */
import { WeldlineError } from '../engine/errors.ts';

const EXAMPLE_ENDPOINT = 'https://huggingface.co';

export interface HubConnection {
  /** `https://huggingface.co` or a mirror; may have a path; may not hold credentials. */
  readonly endpoint: string;
  /** A hub access token. Sent to the origin of `endpoint` only. */
  readonly token?: string | undefined;
  readonly fetch?: typeof globalThis.fetch | undefined;
  readonly patience?: Partial<HubPatience> | undefined;
}

export interface HubPatience {
  /** Failures in a row, without progress between them, after which a request is given up. */
  readonly attemptsMax: number;
  /** The first wait between attempts; each further one is twice as long, with jitter. */
  readonly delayMs: number;
  readonly delayMsMax: number;
  /** The longest `Retry-After` that is waited for here. */
  readonly retryAfterMsMax: number;
  /** A connection on which nothing arrives for this long is cut. */
  readonly stallTimeoutMs: number;
}

const PATIENCE: HubPatience = {
  // With the delays below: about 30 s of trouble, the length of a load balancer's restart. Longer
  // outages belong to the workflow, which retries the whole activity without holding a worker.
  attemptsMax: 6,
  delayMs: 1_000,
  delayMsMax: 30_000,
  // The hub counts requests over windows of five minutes, so a longer wait is not about our rate.
  retryAfterMsMax: 300_000,
  // Healthy connections deliver many times a second; a CDN that fetches a cold object can be silent
  // for some ten seconds.
  stallTimeoutMs: 30_000,
};

export function patienceOf(connection: HubConnection): HubPatience {
  return { ...PATIENCE, ...connection.patience };
}

/**
 * The URL of `path` (already percent-encoded, without a leading slash) on the hub.
 * @throws WeldlineError `config.invalid` if the endpoint cannot be used
 */
export function hubUrl(connection: HubConnection, path: string): URL {
  return new URL(`${endpointUrl(connection.endpoint).href.replace(/\/+$/, '')}/${path}`);
}

/**
 * The Authorization header for a request to `url`, empty for any origin but the endpoint's: download
 * links lead to storage hosts that must not see the token.
 * @throws WeldlineError `hub.unauthorized` if the token cannot be sent in a header
 */
export function authorizationFor(connection: HubConnection, url: URL): Record<string, string> {
  const token = connection.token?.trim();
  if (!token || url.origin !== endpointUrl(connection.endpoint).origin) return {};
  // Checked here because `fetch` would quote the whole header in its own error message.
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new WeldlineError(
      'hub.unauthorized',
      'The hub token holds characters that no token has (blanks, line breaks or letters outside ' +
        'ASCII): copy it again from the hub settings into HF_TOKEN.',
    );
  }
  return { authorization: `Bearer ${token}` };
}

function endpointUrl(endpoint: string): URL {
  // The value is not quoted in the errors: it may hold a password.
  if (!URL.canParse(endpoint)) {
    throw new WeldlineError(
      'config.invalid',
      `The hub endpoint is not a URL: set HF_ENDPOINT to something like ${EXAMPLE_ENDPOINT}.`,
    );
  }
  const url = new URL(endpoint);
  const usable = url.protocol === 'https:' || url.protocol === 'http:';
  if (!usable || url.username || url.password || url.search || url.hash) {
    throw new WeldlineError(
      'config.invalid',
      'The hub endpoint must be a plain http or https URL without user name, password, query or ' +
        'fragment: put the token into HF_TOKEN instead of HF_ENDPOINT.',
    );
  }
  return url;
}
