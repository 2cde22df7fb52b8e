import { ApplicationFailure, CancelledFailure } from '@temporalio/activity';
import { toKnownError } from '../engine/disk-errors.ts';
import type { ErrorCode } from '../engine/errors.ts';
import { shownText } from './history-limits.ts';

/**
 * What becomes of a stage that fails:
 * - `permanent`: the same inputs fail in the same way; the release fails at once
 * - `mend`: a person can mend the cause and resume; the release waits
 * - `retry`: it may pass by itself; it is tried again, and if it does not pass, the release waits
 */
export type Disposition = 'permanent' | 'mend' | 'retry';

/** Codes that are not permanent. Everything else follows from the inputs, and stays as it is. */
const DISPOSITION_BY_CODE: Partial<Record<ErrorCode, Disposition>> = {
  'disk.full': 'mend',
  // Others finish, or their lease runs out.
  'disk.reserved': 'retry',
  'disk.read-failed': 'retry',
  'disk.write-failed': 'retry',
  'output.not-writable': 'mend',
  'publish.not-writable': 'mend',
  'publish.unauthorized': 'mend',
  'publish.not-found': 'mend',
  'publish.unavailable': 'retry',
  'publish.rate-limited': 'retry',
  'publish.rejected': 'mend',
  'publish.verify-failed': 'retry',
  'publish.source-changed': 'mend',
  'publish.alias-moved': 'retry',
  'attest.key-invalid': 'mend',
  'attest.no-identity': 'mend',
  'attest.unavailable': 'retry',
  'source.unauthorized': 'mend',
  'source.unavailable': 'retry',
  'source.digest-mismatch': 'retry',
  'merge.worker-crashed': 'retry',
  'payload.key-missing': 'mend',
  'hub.unauthorized': 'mend',
  'hub.gated': 'mend',
  'hub.rate-limited': 'retry',
  'hub.unavailable': 'retry',
  'hub.stalled': 'retry',
  'hub.bad-response': 'retry',
  'hub.digest-mismatch': 'retry',
  'hub.file-changed': 'retry',
  'tool.not-found': 'mend',
  'tool.install-failed': 'mend',
  'tool.wrong-version': 'mend',
  'tool.failed': 'mend',
  'tool.stalled': 'retry',
  'tool.killed': 'mend',
  'convert.bad-calibration': 'mend',
  'convert.imatrix-invalid': 'mend',
  'convert.check-failed': 'mend',
  'convert.source-damaged': 'mend',
  'kernel.missing': 'mend',
  'evaluate.suite-invalid': 'mend',
  'evaluate.runner-failed': 'mend',
  'evaluate.endpoint-failed': 'mend',
  'evaluate.distributions-damaged': 'mend',
  'evaluate.reference-missing': 'mend',
};

/**
 * Where each attempt may take hours of a program's time, few are made before a person is asked; by
 * default workflows have their own limits.
 */
const ATTEMPTS_MAX: Partial<Record<ErrorCode, number>> = {
  'tool.stalled': 2,
  // A file that changed since it was judged stays so, and is sent or read as a whole each time.
  'publish.verify-failed': 3,
};

export function dispositionOf(code: ErrorCode): Disposition {
  return DISPOSITION_BY_CODE[code] ?? 'permanent';
}

/** What an `ApplicationFailure` carries in its details, beside its type (the code). */
export interface FailureDetails {
  readonly disposition: Disposition;
}

/**
 * An error as a Temporal failure: the code as its type, since classes do not survive the journey
 * into a workflow. An error without a code is a bug, which trying again does not mend.
 * @param attempt which attempt at the activity failed, from 1
 */
export function toFailure(error: unknown, attempt = 1): Error {
  if (error instanceof CancelledFailure || error instanceof ApplicationFailure) return error;
  const known = toKnownError(error);
  const disposition = dispositionOf(known.code);
  const details: FailureDetails = { disposition };
  return ApplicationFailure.create({
    message: shownText(known.message),
    type: known.code,
    nonRetryable: disposition !== 'retry' || attempt >= (ATTEMPTS_MAX[known.code] ?? Infinity),
    details: [details],
  });
}
