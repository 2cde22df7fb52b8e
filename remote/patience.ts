/** How patient clients of remote stores are with a server; tests are less so. */
export interface Patience {
  /** Attempts at one request, the first included. */
  readonly attemptsMax: number;
  /** Wait before the second attempt, doubled before each further one. */
  readonly backoffMs: number;
  /** A request on which nothing moves for so long has failed. */
  readonly stallTimeoutMs: number;
  /** A longer `Retry-After` is left to the workflow's own retries. */
  readonly retryAfterMaxMs: number;
}

export const PATIENCE: Patience = {
  attemptsMax: 4,
  backoffMs: 500,
  stallTimeoutMs: 60_000,
  retryAfterMaxMs: 30_000,
};
