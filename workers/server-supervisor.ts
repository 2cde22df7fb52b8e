import { WeldlineError } from '../engine/errors.ts';
import { isServerAlive, readState, type ServerFiles, type ServerState } from './server-files.ts';
import { serverStopped } from './server-start.ts';

/** Clients retry for much longer: a dead server is back before any of them gives up. */
const CHECK_INTERVAL_MS = 500;
/** A server that dies again and again has a reason a person must see. */
const FAILURES_MAX = 3;

export interface SupervisorOptions {
  files: ServerFiles;
  server: ServerState;
  /** Brings the server back under the lock, unless another process has done so already. */
  restart: () => Promise<ServerState>;
  /** The server died and runs again, whoever restarted it. */
  onRestart: (server: ServerState) => void;
  /** The server is gone for good: stopped by hand, or it cannot be restarted. */
  onLost: (error: unknown) => void;
}

export interface Supervisor {
  /** Ends the watch, after a restart that is under way. */
  stop(): Promise<void>;
}

/** Watches the server for as long as this process uses it. */
export function superviseServer(options: SupervisorOptions): Supervisor {
  const { files } = options;
  let known = options.server;
  let failureCount = 0;
  let checking: Promise<void> = Promise.resolve();
  let isBusy = false;

  const check = async () => {
    try {
      const state = readState(files);
      if (state === undefined) throw serverStopped();
      if (state.pid === known.pid && isServerAlive(files, state)) return;
      known = await options.restart();
      failureCount = 0;
      options.onRestart(known);
    } catch (error) {
      failureCount += 1;
      const isStopped = error instanceof WeldlineError && error.code === 'temporal.unreachable';
      if (failureCount < FAILURES_MAX && !isStopped) return;
      clearInterval(timer);
      options.onLost(error);
    }
  };
  const timer = setInterval(() => {
    if (isBusy) return;
    isBusy = true;
    checking = check().finally(() => {
      isBusy = false;
    });
  }, CHECK_INTERVAL_MS);
  // Watching alone is no reason for the process to live on.
  timer.unref();

  return {
    stop: async () => {
      clearInterval(timer);
      await checking;
    },
  };
}
