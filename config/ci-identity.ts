import { Secret } from './secret.ts';

/**
 * Whom `sign: keyless` signs as: a token for Sigstore, or where GitHub Actions gives one to a job
 * that may have it (`permissions: id-token: write`).
 */
export type CiIdentity =
  | { readonly token: Secret }
  | { readonly requestUrl: string; readonly requestToken: Secret };

/** Looks where Sigstore's own clients look. */
export function readCiIdentity(get: (name: string) => string | undefined): CiIdentity | undefined {
  const token = get('SIGSTORE_ID_TOKEN');
  if (token !== undefined) return { token: new Secret(token) };
  const requestUrl = get('ACTIONS_ID_TOKEN_REQUEST_URL');
  const requestToken = get('ACTIONS_ID_TOKEN_REQUEST_TOKEN');
  if (requestUrl === undefined || requestToken === undefined) return undefined;
  return { requestUrl, requestToken: new Secret(requestToken) };
}
