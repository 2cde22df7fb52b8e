import { type ErrorCode, WeldlineError } from '../engine/errors.ts';

/** Who asks: a publisher or a source; they name the same failures by codes of their own. */
export type S3Side = 'publish' | 'source';

/** What S3 says in the body of an error where its status alone would mislead. */
const TRANSIENT_REASONS: ReadonlySet<string> = new Set([
  'RequestTimeout',
  'InternalError',
  'SlowDown',
  'ServiceUnavailable',
  // The bytes arrived in another state than they were sent in; they are sent again.
  'BadDigest',
  'IncompleteBody',
  'XAmzContentChecksumMismatch',
  'XAmzContentSHA256Mismatch',
  // The SDK has corrected its clock by the server's when it throws this.
  'RequestTimeTooSkewed',
  // Two conditional writes of one key at a time; neither has failed its condition yet.
  'ConditionalRequestConflict',
  'OperationAborted',
]);

const UNAUTHORIZED_REASONS: ReadonlySet<string> = new Set([
  'ExpiredToken',
  'InvalidToken',
  'TokenRefreshRequired',
]);

const REGION_REASONS: ReadonlySet<string> = new Set([
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
  'PermanentRedirect',
]);

interface SdkError {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly $response?: { readonly headers?: Readonly<Record<string, string>> };
}

/** What is known of a request that failed. */
export interface S3Failure {
  readonly error: WeldlineError;
  readonly mayPass: boolean;
  /** What the server asks to wait. */
  readonly retryAfterMs?: number;
}

/**
 * An error of the SDK for people. Of the server's text only its code is kept: messages of S3
 * repeat what was signed.
 * @returns undefined for what is no failure of a request
 */
export function toS3Failure(thrown: unknown, what: string, side: S3Side): S3Failure | undefined {
  const { name, code, $metadata, $response } = thrown as SdkError;
  const said = typeof name === 'string' && /^\w{1,64}$/.test(name) ? name : 'Error';
  if (said === 'CredentialsProviderError' || said === 'TokenProviderError') {
    return { error: withoutCredentials(what, side), mayPass: false };
  }
  const status = $metadata?.httpStatusCode;
  if (status === undefined) {
    const isBroken =
      said === 'TimeoutError' || (typeof code === 'string' && /^E[A-Z_]+/.test(code));
    return isBroken ? unreachable(what, side, String(code ?? said)) : undefined;
  }
  const mayPass =
    TRANSIENT_REASONS.has(said) ||
    [408, 409, 429].includes(status) ||
    // 501: what a server lacks today it will lack tomorrow.
    (status >= 500 && status !== 501) ||
    status < 300;
  const retryAfterMs = toWaitMs($response?.headers?.['retry-after']);
  const error = new WeldlineError(
    codeOf(status, said, mayPass, side),
    `${what}: the server answered ${status}${said === 'Error' ? '' : ` (${said})`}. ` +
      remedyFor(status, said, mayPass),
    { details: { status, reason: said } },
  );
  return { error, mayPass, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

/** Whether an error is the server's answer of one of these statuses or codes. */
export function isAnswer(error: unknown, ...answers: readonly (number | string)[]): boolean {
  if (!(error instanceof WeldlineError)) return false;
  const { status, reason } = error.details;
  return answers.some((answer) => answer === status || answer === reason);
}

function codeOf(status: number, reason: string, mayPass: boolean, side: S3Side): ErrorCode {
  const isDenied = status === 401 || status === 403 || UNAUTHORIZED_REASONS.has(reason);
  if (status === 429) return side === 'publish' ? 'publish.rate-limited' : 'source.unavailable';
  if (mayPass) return `${side}.unavailable`;
  if (isDenied) return `${side}.unauthorized`;
  if (status === 404) return `${side}.not-found`;
  if (side === 'source') return 'source.invalid-reference';
  return status === 412 ? 'publish.conflict' : 'publish.rejected';
}

function remedyFor(status: number, reason: string, mayPass: boolean): string {
  if (mayPass) return 'Try again later.';
  if (REGION_REASONS.has(reason)) {
    return 'The bucket is in another region: set "region" in the recipe, or AWS_REGION.';
  }
  if (status === 501) return 'The server lacks what weldline needs of S3: see the documentation.';
  if (status === 404) return 'Check the names of bucket and prefix, and the endpoint.';
  if (status === 401 || status === 403 || UNAUTHORIZED_REASONS.has(reason)) {
    return (
      'Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or AWS_PROFILE), and ' +
      'that they may list, read and write this bucket.'
    );
  }
  return 'Check the bucket and the endpoint.';
}

export function withoutCredentials(what: string, side: S3Side): WeldlineError {
  return new WeldlineError(
    `${side}.unauthorized`,
    `${what}: there are no credentials for S3. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ` +
      'AWS_PROFILE for a profile of ~/.aws, or run where a role of the machine gives them. Workers ' +
      'need them in their own environment, from their start.',
  );
}

function unreachable(what: string, side: S3Side, reason: string): S3Failure {
  const error = new WeldlineError(
    `${side}.unavailable`,
    `${what}: the server cannot be reached (${reason}). Check the endpoint, the network and the proxy.`,
    { details: { reason } },
  );
  return { error, mayPass: true };
}

/** S3 itself sends seconds; so do the servers that speak its protocol. */
function toWaitMs(header: string | undefined): number | undefined {
  return header !== undefined && /^\d{1,9}$/.test(header) ? Number(header) * 1000 : undefined;
}
