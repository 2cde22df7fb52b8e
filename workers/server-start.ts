import { rmSync } from 'node:fs';
import { WeldlineError } from '../engine/errors.ts';
import { checkDiskSpace } from '../engine/plan/disk-space.ts';
import { findFreePort, isPortFree } from './free-port.ts';
import {
  fileBytes,
  isServerAlive,
  readPorts,
  readState,
  type ServerFiles,
  type ServerPorts,
  type ServerState,
  writePorts,
} from './server-files.ts';
import { addressOf, isAnswering, launchServer, terminateServer } from './server-process.ts';
import { waitUntil } from './wait-until.ts';

/** A live server that does not answer for this long is hung, and is replaced. */
const UNRESPONSIVE_AFTER_MS = 20_000;
/** A killed server's sockets outlive it by the moment the kernel needs to take it apart. */
const PORT_FREE_TIMEOUT_MS = 3_000;
const POLL_MS = 100;
/** An empty one, with its tables. */
const DATABASE_BYTES = 1_000_000;
/** Another program can take a port between the check and the start; hardly twice. */
const START_ATTEMPTS_MAX = 3;

export interface StartOptions {
  cli: { path: string; version: string };
  ui: boolean;
  signal?: AbortSignal | undefined;
  log?: ((line: string) => void) | undefined;
}

/** The server that runs, or a new one. The lock must be held. */
export async function ensureRunning(
  files: ServerFiles,
  options: StartOptions,
): Promise<ServerState> {
  const state = readState(files);
  if (state !== undefined && (await isUsable(files, state, options))) return state;
  for (let attempt = 1; ; attempt++) {
    const ports = await choosePorts(files);
    try {
      return await launch(files, ports, options);
    } catch (error) {
      const mayRetry = error instanceof WeldlineError && error.details['addressInUse'] === true;
      if (!mayRetry || attempt === START_ATTEMPTS_MAX) throw error;
    }
  }
}

/** Restarts a dead server on its address, for clients know no other. The lock must be held. */
export async function bringBack(files: ServerFiles, options: StartOptions): Promise<ServerState> {
  const state = readState(files);
  if (state === undefined) throw serverStopped();
  if (await isUsable(files, state, options)) return state;
  const { port, uiPort } = state;
  // Should another program keep a port, the launch fails and says so.
  await isPortFreeSoon(port);
  if (uiPort !== undefined) await isPortFreeSoon(uiPort);
  return await launch(
    files,
    { port, uiPort: uiPort ?? port },
    { ...options, ui: uiPort !== undefined },
  );
}

/** The server was stopped on purpose: its state file is gone. */
export function serverStopped(): WeldlineError {
  return new WeldlineError(
    'temporal.unreachable',
    'The embedded Temporal server was stopped by another command. ' +
      'Run this command again, or `weldline resume`, to go on.',
  );
}

async function launch(
  files: ServerFiles,
  { port, uiPort }: ServerPorts,
  { cli, ui, signal }: StartOptions,
): Promise<ServerState> {
  const isFirst = fileBytes(files.database) === 0;
  if (isFirst) {
    const purpose = 'the database of the embedded Temporal server';
    await checkDiskSpace([{ directory: files.directory, bytes: DATABASE_BYTES, purpose }]);
  }
  try {
    return await launchServer({ files, cli, port, signal, ...(ui ? { uiPort } : {}) });
  } catch (error) {
    // One that was cut off while it was made would never work, and nothing is in it.
    if (isFirst) removeDatabase(files);
    throw error;
  }
}

function removeDatabase({ database }: ServerFiles): void {
  for (const ending of ['', '-journal', '-wal', '-shm']) rmSync(database + ending, { force: true });
}

/** Whether the server answers, or will within its start; one that hangs is ended. */
async function isUsable(
  files: ServerFiles,
  state: ServerState,
  { signal, log }: StartOptions,
): Promise<boolean> {
  let isUp = false;
  const isDecided = async () => {
    if (!isServerAlive(files, state)) return true;
    isUp = await isAnswering(addressOf(state));
    return isUp;
  };
  const wait = { timeoutMs: UNRESPONSIVE_AFTER_MS, pollMs: POLL_MS, signal };
  if (await waitUntil(isDecided, wait)) return isUp;
  log?.(`The embedded Temporal server (process ${state.pid}) hangs; replacing it.`);
  await terminateServer(files, state);
  return false;
}

/** The ports of the last time, unless another program has taken them since. */
async function choosePorts(files: ServerFiles): Promise<ServerPorts> {
  const last = readPorts(files);
  const keep = async (port: number | undefined) =>
    port !== undefined && (await isPortFreeSoon(port)) ? port : await findFreePort();
  const port = await keep(last?.port);
  let uiPort = await keep(last?.uiPort);
  while (uiPort === port) uiPort = await findFreePort();
  const ports = { port, uiPort };
  if (port !== last?.port || uiPort !== last.uiPort) await writePorts(files, ports);
  return ports;
}

async function isPortFreeSoon(port: number): Promise<boolean> {
  return await waitUntil(() => isPortFree(port), {
    timeoutMs: PORT_FREE_TIMEOUT_MS,
    pollMs: POLL_MS,
  });
}
