import type { ActivityOptions, RetryPolicy } from '@temporalio/workflow';

/**
 * Failures that may pass are retried for a while (about 8 minutes); then the release waits for a
 * person. Which failures those are is decided where they arise (activities/failures.ts): all others
 * are marked non-retryable.
 */
const RETRY: RetryPolicy = {
  initialInterval: '2s',
  backoffCoefficient: 2,
  maximumInterval: '2m',
  maximumAttempts: 9,
};

/** A lost worker is not a failure of the work: it may be lost often, on spot machines daily. */
const RETRY_LONG_WORK: RetryPolicy = { ...RETRY, maximumAttempts: 50 };

/** Names, headers, small files. */
export function shortWork(heartbeatTimeoutMs: number): ActivityOptions {
  return {
    startToCloseTimeout: '1h',
    heartbeatTimeout: heartbeatTimeoutMs,
    retry: RETRY,
    // A release that counts as cancelled, or paused, must not move an alias after that.
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
  };
}

/** Everything that moves a checkpoint's bytes: hours for the largest, over slow networks days. */
export function longWork(heartbeatTimeoutMs: number): ActivityOptions {
  return {
    startToCloseTimeout: '7d',
    heartbeatTimeout: heartbeatTimeoutMs,
    retry: RETRY_LONG_WORK,
    // What a cancelled activity holds open must be closed before the release counts as cancelled.
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
  };
}
