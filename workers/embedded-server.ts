import { rmSync } from 'node:fs';
import { toKnownError } from '../engine/disk-errors.ts';
import { withProcessLock } from './process-lock.ts';
import {
  createServerFiles,
  fileBytes,
  isServerAlive,
  leaseHolders,
  locateServerFiles,
  readState,
  removeStaleLeases,
  type ServerFiles,
  takeLease,
} from './server-files.ts';
import {
  addressOf,
  isAnswering,
  SERVER_NAMESPACE,
  terminateServer,
  uiAddressOf,
} from './server-process.ts';
import { bringBack, ensureRunning } from './server-start.ts';
import { superviseServer } from './server-supervisor.ts';

/** A start that waits for a slow machine (90 s) and stops again must fit in. */
const LOCK_TIMEOUT_MS = 150_000;
export interface EmbeddedServerOptions {
  /** The server lives in `<home>/server`; must be on a disk of this machine. */
  home: string;
  /** As `ensureTemporalCli` returns it. */
  cli: { path: string; version: string };
  /** Serve the web interface too, if this call starts the server; true by default. */
  ui?: boolean;
  signal?: AbortSignal | undefined;
  /** One line per event, for people. */
  log?: ((line: string) => void) | undefined;
  /** The server died and is back on the same address with the same histories. */
  onRestart?: ((server: { pid: number }) => void) | undefined;
  /** The server is gone for good; calls to it will fail from now on. */
  onLost?: ((error: unknown) => void) | undefined;
}

export interface EmbeddedServer {
  /** `127.0.0.1:23456`, the same for the life of the home unless another program takes it. */
  address: string;
  namespace: string;
  uiAddress?: string;
  /** Gives the server back; the last user stops it. May be called more than once. */
  release(): Promise<void>;
}

/**
 * The Temporal server of this home, started if it does not run yet. All processes of a home share
 * one server and one on-disk database; each holds a lease, restarts the server if it dies, and the
 * last to release stops it. A process that dies leaves the server running for the next one.
 *
 * @throws WeldlineError `temporal.start-failed`; the reason of `signal` when that aborts it
 */
export async function acquireEmbeddedServer(
  options: EmbeddedServerOptions,
): Promise<EmbeddedServer> {
  const files = await createServerFiles(options.home);
  const { signal, log, cli, ui = true } = options;
  const lock = { timeoutMs: LOCK_TIMEOUT_MS };
  const { lease, server } = await withProcessLock(files.lock, { ...lock, signal }, async () => {
    const lease = takeLease(files);
    try {
      return { lease, server: await ensureRunning(files, { cli, ui, signal, log }) };
    } catch (error) {
      await dropLease(files, lease);
      throw error;
    }
  });
  const supervisor = superviseServer({
    files,
    server,
    restart: async () =>
      await withProcessLock(files.lock, lock, () => bringBack(files, { cli, ui, log })),
    onRestart: (restarted) => {
      log?.(`The embedded Temporal server died and runs again on ${addressOf(restarted)}.`);
      options.onRestart?.({ pid: restarted.pid });
    },
    onLost: (error) => options.onLost?.(error),
  });
  let released: Promise<void> | undefined;
  const release = async () => {
    await supervisor.stop();
    try {
      await withProcessLock(files.lock, lock, () => dropLease(files, lease));
    } catch (error) {
      if (toKnownError(error).code !== 'disk.full') throw error;
      // Where even a lock needs room, the server stays for the next command, as after a kill.
      rmSync(lease, { force: true });
    }
  };
  const uiAddress = uiAddressOf(server);
  return {
    address: addressOf(server),
    namespace: SERVER_NAMESPACE,
    ...(uiAddress === undefined ? {} : { uiAddress }),
    release: () => {
      released ??= release();
      return released;
    },
  };
}

/** Whether another live process of this home uses the server, and may be doing its work. */
export function hasOtherUsers(home: string): boolean {
  return leaseHolders(locateServerFiles(home)).some((pid) => pid !== process.pid);
}

export interface EmbeddedServerStatus {
  state: 'stopped' | 'running' | 'unresponsive';
  pid?: number;
  address?: string;
  uiAddress?: string;
  /** RFC 3339. */
  startedAt?: string;
  cliVersion?: string;
  /** The ids of the processes that use it. */
  leaseHolders: number[];
  databasePath: string;
  databaseBytes: number;
  logPath: string;
}

/** What runs in this home; looks only, and creates nothing. */
export async function embeddedServerStatus(home: string): Promise<EmbeddedServerStatus> {
  const files = locateServerFiles(home);
  const common = {
    leaseHolders: leaseHolders(files),
    databasePath: files.database,
    databaseBytes: fileBytes(files.database),
    logPath: files.log,
  };
  const state = readState(files);
  if (state === undefined || !isServerAlive(files, state)) return { state: 'stopped', ...common };
  const uiAddress = uiAddressOf(state);
  return {
    state: (await isAnswering(addressOf(state))) ? 'running' : 'unresponsive',
    pid: state.pid,
    address: addressOf(state),
    ...(uiAddress === undefined ? {} : { uiAddress }),
    startedAt: state.startedAt,
    cliVersion: state.cliVersion,
    ...common,
  };
}

export interface StopResult {
  /** Whether a server ran and was stopped. */
  stopped: boolean;
  /** The processes that use it; without `force` any of them keeps it running. */
  leaseHolders: number[];
}

/** Stops the server of this home if nobody uses it, or in any case with `force`. */
export async function stopEmbeddedServer(
  home: string,
  options: { force?: boolean; signal?: AbortSignal } = {},
): Promise<StopResult> {
  if (readState(locateServerFiles(home)) === undefined) {
    return { stopped: false, leaseHolders: [] };
  }
  const files = await createServerFiles(home);
  const lock = { timeoutMs: LOCK_TIMEOUT_MS, signal: options.signal };
  return await withProcessLock(files.lock, lock, async () => {
    const holders = leaseHolders(files);
    if (holders.length > 0 && options.force !== true) {
      return { stopped: false, leaseHolders: holders };
    }
    return { stopped: await stopServer(files), leaseHolders: holders };
  });
}

/** The lock must be held. */
async function dropLease(files: ServerFiles, lease: string): Promise<void> {
  rmSync(lease, { force: true });
  removeStaleLeases(files);
  if (leaseHolders(files).length === 0) await stopServer(files);
}

/** The lock must be held. */
async function stopServer(files: ServerFiles): Promise<boolean> {
  const state = readState(files);
  const wasAlive = state !== undefined && isServerAlive(files, state);
  if (wasAlive) await terminateServer(files, state);
  // To supervisors a missing state file says that it was stopped on purpose. Last, so that no
  // server ever runs without one.
  rmSync(files.state, { force: true });
  return wasAlive;
}
