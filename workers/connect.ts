import { NativeConnection } from '@temporalio/worker';
import type { TemporalTarget } from '../config/temporal-connection.ts';
import { WeldlineError } from '../engine/errors.ts';
import {
  type ConnectionProblem,
  findConnectionProblem,
  problemError,
} from './connection-problem.ts';
import { waitUntil } from './wait-until.ts';

/** Clients have reached the server by now: if it is away, it is being restarted. */
const CONNECT_TIMEOUT_MS = 30_000;
const CONNECT_INTERVAL_MS = 500;

/** TLS, API key and headers of a configured server. */
export type ConnectionOptions = Omit<TemporalTarget, 'address' | 'namespace'>;

/** @throws WeldlineError `temporal.unreachable`, `temporal.unauthorized` */
export async function connect(
  address: string,
  options: ConnectionOptions = {},
): Promise<NativeConnection> {
  const target: TemporalTarget = { ...options, address, namespace: 'default' };
  let connection: NativeConnection | undefined;
  let error: unknown;
  let problem: ConnectionProblem | undefined;
  const isSettled = async (): Promise<boolean> => {
    try {
      connection = await NativeConnection.connect({ ...options, address });
      return true;
    } catch (reason) {
      error = reason;
      problem = await findConnectionProblem(target);
      return problem?.isLasting === true || isRefusal(reason);
    }
  };
  const wait = { timeoutMs: CONNECT_TIMEOUT_MS, pollMs: CONNECT_INTERVAL_MS };
  await waitUntil(isSettled, wait);
  if (connection !== undefined) return connection;
  if (problem !== undefined) throw problemError(target, problem, error);
  throw new WeldlineError(
    isRefusal(error) ? 'temporal.unauthorized' : 'temporal.unreachable',
    isRefusal(error)
      ? `The Temporal server at ${address} does not let this worker in. Check TEMPORAL_API_KEY or ` +
          'the client certificate, and what they are allowed to do.'
      : `The Temporal server at ${address} greets, but does not answer. See its log.`,
    { cause: error },
  );
}

/** The SDK's native part says by texts only why a first call failed. */
function isRefusal(error: unknown): boolean {
  const { message } = error as Error;
  return /valid authentication credentials|permission to execute/.test(message);
}
