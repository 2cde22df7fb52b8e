import { setTimeout as sleep } from 'node:timers/promises';
import { Connection } from '@temporalio/client';
import type { TemporalTarget } from '../config/temporal-connection.ts';
import { WeldlineError } from '../engine/errors.ts';
import { findConnectionProblem, problemError } from '../workers/connection-problem.ts';
import { refusedCall } from '../workers/refused-call.ts';

/** A server that is restarted may be back in this time. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Connections that come about do so by then; one that does not is looked at. */
const CONNECT_USUAL_MS = 500;

export interface ConnectClientOptions {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
}

/**
 * Connects to a Temporal server, and sees that the namespace is there and open.
 * @throws WeldlineError `temporal.unreachable`, `temporal.unauthorized`, `temporal.namespace-not-found`
 */
export async function connectClient(
  target: TemporalTarget,
  { signal, timeoutMs = CONNECT_TIMEOUT_MS }: ConnectClientOptions = {},
): Promise<Connection> {
  const { namespace, ...options } = target;
  const connection = Connection.lazy({ ...options, connectTimeout: timeoutMs });
  const stop = new AbortController();
  try {
    await Promise.race([
      connection.ensureConnected(),
      lastingProblem(target, AbortSignal.any([stop.signal, ...(signal ? [signal] : [])])),
    ]);
    await connection.withDeadline(Date.now() + timeoutMs, () =>
      connection.workflowService.describeNamespace({ namespace }),
    );
    return connection;
  } catch (error) {
    await connection.close();
    signal?.throwIfAborted();
    throw await explained(target, error);
  } finally {
    stop.abort();
  }
}

/** Rejects where waiting does not help; never resolves. */
async function lastingProblem(target: TemporalTarget, signal: AbortSignal): Promise<never> {
  await sleep(CONNECT_USUAL_MS, undefined, { signal });
  const problem = await findConnectionProblem(target);
  if (problem?.isLasting) throw problemError(target, problem);
  return await new Promise(() => undefined);
}

async function explained(target: TemporalTarget, error: unknown): Promise<WeldlineError> {
  if (error instanceof WeldlineError) return error;
  const problem = await findConnectionProblem(target);
  if (problem !== undefined) return problemError(target, problem, error);
  const refusal = refusedCall(error, target);
  if (refusal !== undefined) return refusal;
  return new WeldlineError(
    'temporal.unreachable',
    `The Temporal server at ${target.address} greets, but does not answer. See its log.`,
    { cause: error },
  );
}
