import { ApplicationFailure, CancelledFailure } from '@temporalio/activity';
import type { ErrorCode } from '../engine/errors.ts';
import { toWeldlineError } from '../engine/to-weldline-error.ts';

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
  'disk.read-failed': 'retry',
  'disk.write-failed': 'retry',
  'output.not-writable': 'mend',
  'publish.not-writable': 'mend',
  'merge.worker-crashed': 'retry',
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
  'tool.failed': 'retry',
  'tool.stalled': 'retry',
  'tool.killed': 'mend',
  'convert.bad-calibration': 'mend',
  'convert.check-failed': 'mend',
  'convert.source-damaged': 'mend',
  'kernel.missing': 'mend',
  'evaluate.suite-invalid': 'mend',
  'evaluate.runner-failed': 'mend',
  'evaluate.text-too-short': 'mend',
  'evaluate.endpoint-failed': 'mend',
  'evaluate.distributions-damaged': 'mend',
  'evaluate.reference-missing': 'mend',
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
 */
export function toFailure(error: unknown): Error {
  if (error instanceof CancelledFailure || error instanceof ApplicationFailure) return error;
  const known = toWeldlineError(error);
  const disposition = dispositionOf(known.code);
  const details: FailureDetails = { disposition };
  return ApplicationFailure.create({
    message: known.message,
    type: known.code,
    nonRetryable: disposition !== 'retry',
    details: [details],
  });
}
