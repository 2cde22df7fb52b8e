import { WeldlineError } from '../engine/errors.ts';
import { retryAfterMs } from './hub-retry.ts';

export interface HubRequestFacts {
  /** What was asked for, without credentials: `hf://org/name@revision/path`. */
  readonly name: string;
  readonly repo: string;
  /** Where a person can look at the repository and accept its licence. */
  readonly page: string;
  readonly hasToken: boolean;
}

/** The error for an answer of the hub that is not a success. Never quotes the request. */
export function hubFailure(response: Response, facts: HubRequestFacts): WeldlineError {
  const { status, headers } = response;
  // The hub answers 401 or 403 with this code for a licence that was not accepted.
  if (headers.get('x-error-code') === 'GatedRepo') return gated(status, facts);
  if (status === 401 || status === 403) return unauthorized(status, facts);
  if (status === 404 || status === 410) return notFound(headers.get('x-error-code'), facts);
  const waitMs = retryAfterMs(headers, Date.now());
  const details = { status, ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }) };
  if (status === 429) {
    const how = facts.hasToken ? '' : ' Requests with a token have higher limits: set HF_TOKEN.';
    return new WeldlineError(
      'hub.rate-limited',
      `The hub refuses ${facts.name} because of too many requests (429). Wait some minutes.${how}`,
      { details },
    );
  }
  if (status === 408 || status === 425 || status >= 500) {
    return new WeldlineError(
      'hub.unavailable',
      `The hub answers ${status} for ${facts.name}. Look at its status page and run again later.`,
      { details },
    );
  }
  return new WeldlineError(
    'hub.bad-response',
    `The hub answers ${status} for ${facts.name}, which weldline does not expect. Check ` +
      'HF_ENDPOINT and the proxy.',
    { details },
  );
}

function gated(status: number, facts: HubRequestFacts): WeldlineError {
  const token = facts.hasToken
    ? 'with the account whose token is in HF_TOKEN'
    : 'and set HF_TOKEN to a token of the same account';
  return new WeldlineError(
    'hub.gated',
    `${facts.repo} is gated (${status}): accept its licence at ${facts.page} ${token}.`,
    { details: { status } },
  );
}

function unauthorized(status: number, facts: HubRequestFacts): WeldlineError {
  // The hub hides private repositories: without a token a missing one and a private one look alike.
  const remedy = facts.hasToken
    ? 'The token in HF_TOKEN is not valid or may not read this repository: check it and its scope.'
    : 'Either there is no such repository (check the spelling) or it is private: set HF_TOKEN to ' +
      'a token that may read it.';
  return new WeldlineError(
    'hub.unauthorized',
    `The hub refuses access to ${facts.name} (${status}). ${remedy}`,
    { details: { status } },
  );
}

function notFound(errorCode: string | null, facts: HubRequestFacts): WeldlineError {
  const what =
    errorCode === 'RevisionNotFound'
      ? `The hub has ${facts.repo}, but not the revision asked for: ${facts.name}.`
      : errorCode === 'EntryNotFound'
        ? `The hub has no such file: ${facts.name}.`
        : `The hub has no model ${facts.repo}, or it is private.`;
  return new WeldlineError(
    'hub.not-found',
    `${what} Look at ${facts.page} and correct the name${
      facts.hasToken ? '' : ', or set HF_TOKEN if it is private'
    }.`,
    { details: { status: 404 } },
  );
}

/** For answers that break the protocol: proxies and half-finished mirrors do. */
export function badResponse(name: string, what: string): WeldlineError {
  return new WeldlineError(
    'hub.bad-response',
    `The server ${what} for ${name}. Check HF_ENDPOINT and the proxy: this is not how a hub answers.`,
  );
}

/** For bytes that are not those the commit pins. */
export function fileChanged(name: string, what: string): WeldlineError {
  return new WeldlineError(
    'hub.file-changed',
    `${name} is pinned by its commit, but the server ${what}. Nothing of it was taken; if this ` +
      'stays, the mirror or proxy between here and the hub is serving an old copy.',
  );
}
