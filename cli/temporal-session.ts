import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import type { Logger } from '@temporalio/worker';
import { type Environment, setVariables } from '../config/environment.ts';
import { readTemporalTarget } from '../config/temporal-connection.ts';
import { WeldlineError } from '../engine/errors.ts';
import { ensureTemporalCli } from '../tools/temporal-cli.ts';
import type { ConnectionOptions } from '../workers/connect.ts';
import { acquireEmbeddedServer, hasOtherUsers } from '../workers/embedded-server.ts';
import { createLogger } from '../workers/logger.ts';
import type { WorkerOptions } from '../workers/main.ts';
import { EncryptionCodec } from '../workers/payload-codec.ts';
import { type PayloadKeys, payloadKeysOf } from '../workers/payload-keys.ts';
import { refusedCall } from '../workers/refused-call.ts';
import type { RunningWorkers } from '../workers/run-workers.ts';
import { startTracing, type Tracing } from '../workers/tracing.ts';
import { waitUntil } from '../workers/wait-until.ts';
import { connectClient } from './connect-client.ts';

/** A connection to Temporal: the server the environment names, or weldline's own. */
export interface TemporalSession {
  readonly client: Client;
  /** Whether the server is weldline's own, so that this process must do the work. */
  readonly embedded: boolean;
  readonly uiAddress: string | undefined;
  /** What a call failed of, if it is the connection: nobody there, or nobody let in. */
  explain(error: unknown): WeldlineError | undefined;
  /** Aborted, with the error to show, when the embedded server is gone for good. */
  readonly lost: AbortSignal;
  /** Whether workers run in this process. */
  hasWorkers(): boolean;
  /** Whether a worker may be there to answer queries: in this process or another. */
  mayHaveWorkers(): boolean;
  /** Starts workers in this process; they stop with the session at the latest. */
  startWorkers(options?: SessionWorkers): Promise<RunningWorkers>;
  close(): Promise<void>;
}

export type SessionWorkers = Pick<WorkerOptions, 'workflowsOnly' | 'roles'> & {
  readonly logger?: Logger;
};

/** Anew each time: gRPC waits ever longer between attempts of its own. */
const CONNECT_ATTEMPT_MS = 3_000;
const CONNECT_INTERVAL_MS = 200;
const CONNECT_TIMEOUT_MS = 60_000;

export interface SessionOptions {
  readonly environment: Environment;
  /** Events of the embedded server and its installation, for people. */
  readonly note: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * @throws WeldlineError `config.invalid`, `temporal.*`, `tool.*`
 */
export async function openSession(options: SessionOptions): Promise<TemporalSession> {
  const { environment, note } = options;
  const keys = payloadKeysOf(environment);
  for (const warning of keys.warnings) note(`warning: ${warning}`);
  const traits = { keys, tracing: await startTracing(environment, note) };
  return environment.temporalConfigured
    ? openConfigured(environment, traits, options.signal)
    : openEmbedded(options, traits);
}

async function openConfigured(
  environment: Environment,
  traits: ClientTraits,
  signal: AbortSignal | undefined,
): Promise<TemporalSession> {
  const target = readTemporalTarget(setVariables());
  const connection = await connectClient(target, { signal });
  const { address, namespace, ...rest } = target;
  return sessionOf(environment, connection, {
    ...traits,
    address,
    namespace,
    embedded: false,
    // A server of one's own may come back after hours; the clients wait for it.
    lost: new AbortController().signal,
    hasOtherUsers: () => true,
    connection: rest,
    release: async () => undefined,
  });
}

async function openEmbedded(
  options: SessionOptions,
  traits: ClientTraits,
): Promise<TemporalSession> {
  const { environment, note, signal } = options;
  const { home } = environment;
  const cli = await ensureTemporalCli({ environment, signal, onProgress: note });
  const lost = new AbortController();
  const onLost = (error: unknown): void => lost.abort(error);
  const server = await acquireEmbeddedServer({ home, cli, signal, log: note, onLost });
  try {
    const { address, namespace, uiAddress } = server;
    const connection = await connectToEmbedded(address, anySignal(signal, lost.signal));
    return sessionOf(environment, connection, {
      ...traits,
      address,
      namespace,
      embedded: true,
      lost: lost.signal,
      ...(uiAddress === undefined ? {} : { uiAddress }),
      hasOtherUsers: () => hasOtherUsers(home),
      release: () => server.release(),
    });
  } catch (error) {
    await server.release();
    throw error;
  }
}

function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}

/** A server that dies in this moment is brought back: its supervisor needs some seconds. */
async function connectToEmbedded(address: string, signal: AbortSignal): Promise<Connection> {
  // A proxy of the environment does not lead to this machine.
  const channelArgs = { 'grpc.enable_http_proxy': 0 };
  let connection: Connection | undefined;
  const connected = async (): Promise<boolean> => {
    connection = await Connection.connect({
      address,
      channelArgs,
      connectTimeout: CONNECT_ATTEMPT_MS,
    }).catch(() => undefined);
    return connection !== undefined;
  };
  const wait = { timeoutMs: CONNECT_TIMEOUT_MS, pollMs: CONNECT_INTERVAL_MS, signal };
  if ((await waitUntil(connected, wait)) && connection !== undefined) return connection;
  throw new WeldlineError(
    'temporal.unreachable',
    `The embedded Temporal server at ${address} does not answer. Run the command again.`,
  );
}

/** What a client does to all that it sends. */
interface ClientTraits {
  readonly keys: PayloadKeys;
  readonly tracing: Tracing | undefined;
}

interface ServerFacts extends ClientTraits {
  readonly address: string;
  readonly namespace: string;
  readonly embedded: boolean;
  readonly lost: AbortSignal;
  readonly uiAddress?: string;
  hasOtherUsers(): boolean;
  readonly connection?: ConnectionOptions;
  release(): Promise<void>;
}

function sessionOf(
  environment: Environment,
  connection: Connection,
  facts: ServerFacts,
): TemporalSession {
  const { address, namespace, embedded, keys, tracing } = facts;
  const dataConverter = { payloadCodecs: [new EncryptionCodec(keys)] };
  const interceptors = tracing && { workflow: [tracing.client] };
  const running = new Set<RunningWorkers>();
  return {
    client: new Client({
      connection,
      namespace,
      dataConverter,
      ...(interceptors && { interceptors }),
    }),
    embedded,
    uiAddress: facts.uiAddress,
    explain: (error) => refusedCall(error, facts),
    lost: facts.lost,
    hasWorkers: () => running.size > 0,
    mayHaveWorkers: () => running.size > 0 || facts.hasOtherUsers(),
    async startWorkers({ logger, ...options } = {}) {
      // The worker's native part takes a while to load: only commands that need it pay.
      const { startWorkers } = await import('../workers/main.ts');
      const workers = await startWorkers({
        ...options,
        environment: embedded ? withoutDeployment(environment) : environment,
        address,
        namespace,
        logger:
          logger ?? createLogger(environment.logLevel, join(environment.home, 'logs/worker.log')),
        ...(facts.connection === undefined ? {} : { connection: facts.connection }),
      });
      running.add(workers);
      const forget = (): void => void running.delete(workers);
      workers.finished.then(forget, forget);
      return workers;
    },
    async close() {
      for (const workers of running) await workers.stop().catch(() => undefined);
      await connection.close();
      await tracing?.flush();
      await facts.release();
    },
  };
}

/** On a server of weldline's own nobody says which version is current, so none would be served. */
function withoutDeployment(environment: Environment): Environment {
  const { deployment: _, ...worker } = environment.worker;
  return { ...environment, worker };
}
