import type { TemporalTarget } from '../config/temporal-connection.ts';
import { WeldlineError } from '../engine/errors.ts';

/** Of gRPC (google.rpc.Code). */
const STATUS = {
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  unimplemented: 12,
  unavailable: 14,
  unauthenticated: 16,
} as const;

type Where = Pick<TemporalTarget, 'address' | 'namespace'>;

/**
 * What a call to Temporal failed of, if it is not the call but the connection: who calls, where to,
 * and whether somebody is there. Of an error of the client's or of gRPC itself.
 */
export function refusedCall(
  error: unknown,
  { address, namespace }: Where,
): WeldlineError | undefined {
  // What has been understood stays as it is, whatever it was that a call failed of.
  if (error instanceof WeldlineError) return undefined;
  const options = { cause: error };
  const who = `namespace ${namespace} of the Temporal server at ${address}`;
  switch (statusOf(error)) {
    case STATUS.unauthenticated:
    case STATUS.permissionDenied:
      return new WeldlineError(
        'temporal.unauthorized',
        `Not allowed into the ${who}. Check TEMPORAL_API_KEY or the client certificate, what they are ` +
          'allowed to do, and TEMPORAL_NAMESPACE, or the profile.',
        options,
      );
    case STATUS.notFound:
      if (!isNamespaceMissing(error)) return undefined;
      return new WeldlineError(
        'temporal.namespace-not-found',
        `There is no ${who}. Set TEMPORAL_NAMESPACE, or namespace of the profile, to one that there ` +
          `is, or create it: temporal operator namespace create ${namespace}`,
        options,
      );
    case STATUS.unimplemented:
      return new WeldlineError(
        'temporal.unreachable',
        `What answers at ${address} is no Temporal server. Correct TEMPORAL_ADDRESS or the profile.`,
        options,
      );
    case STATUS.unavailable:
    case STATUS.deadlineExceeded:
      return new WeldlineError(
        'temporal.unreachable',
        `The Temporal server at ${address} does not answer any more. Run the command again once it does.`,
        options,
      );
    default:
      return undefined;
  }
}

/** Errors of the client have that of gRPC as their cause. */
function statusOf(error: unknown): number | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at.name === 'NamespaceNotFoundError') return STATUS.notFound;
    const { code } = at as { readonly code?: unknown };
    if (typeof code === 'number') return code;
  }
  return undefined;
}

function isNamespaceMissing(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at.name === 'NamespaceNotFoundError' || /\bNamespace\b/.test(at.message)) return true;
  }
  return false;
}
