import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readSync, renameSync } from 'node:fs';
import { connect } from 'node:net';
import { Connection } from '@temporalio/client';
import { msToTs } from '@temporalio/common/lib/time.js';
import { childVariables } from '../config/environment.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { isOlder } from '../tools/temporal-cli.ts';
import { identityOf, isRunning } from './process-identity.ts';
import { fileBytes, isServerAlive, type ServerFiles, type ServerState } from './server-files.ts';
import { waitUntil } from './wait-until.ts';

export const SERVER_NAMESPACE = 'default';

/** What `weldline list` filters by; registered whenever the server starts. */
export const SEARCH_ATTRIBUTES = {
  WeldlineRelease: 'Keyword',
  WeldlineVersion: 'Keyword',
  WeldlineStage: 'Keyword',
  WeldlineBase: 'Keyword',
  WeldlineAdapters: 'KeywordList',
} as const;

/** It answers within a second on an idle machine; this is for one that swaps. */
const READY_TIMEOUT_MS = 90_000;
const READY_POLL_MS = 100;
/** One call over the loopback; a server that needs longer is not ready. */
const CALL_TIMEOUT_MS = 2_000;
/** A graceful stop takes about two seconds; the database survives a kill as well. */
const TERMINATE_TIMEOUT_MS = 15_000;
const TERMINATE_POLL_MS = 50;
/** A year of warnings; at the next start a larger log makes way for a new one. */
const LOG_BYTES_MAX = 10_000_000;
const LOG_TAIL_BYTES = 4_096;
const LOG_TAIL_LINES = 8;
/** The development server forgets closed runs after a day; people look a release up for longer. */
const RETENTION = '30 days';
/** Older versions refuse the flag, and their web interface asks for news only in the browser. */
const NEWS_FLAG_SINCE = '1.8.0';

/**
 * Writes the state file and becomes the server, so that no server ever runs without a record of
 * it, whatever kills its parent: `temporal` would start a second server on the same database.
 */
const RECORD_AND_EXEC =
  'printf \'%s%s%s\' "$2" "$$" "$3" > "$1.draft" && mv "$1.draft" "$1" && shift 3 && exec "$@"';

export interface ServerLaunch {
  files: ServerFiles;
  cli: { path: string; version: string };
  port: number;
  /** Absent for a server without the web interface. */
  uiPort?: number;
  signal?: AbortSignal | undefined;
}

/**
 * Starts the server detached from this process and waits until it answers.
 *
 * @throws WeldlineError `temporal.start-failed` with the end of its log; no server is left behind
 */
export async function launchServer(launch: ServerLaunch): Promise<ServerState> {
  const { files, signal } = launch;
  if (fileBytes(files.log) > LOG_BYTES_MAX) renameSync(files.log, `${files.log}.1`);
  const logStart = fileBytes(files.log);
  const startedAt = new Date().toISOString();
  const child = spawnServer(launch, startedAt);
  let exit: string | undefined;
  child.once('error', (error) => {
    exit = error.message;
  });
  child.once('exit', (code, killedBy) => {
    exit = killedBy === null ? `exit code ${code}` : `ended by ${killedBy}`;
  });
  const { port, uiPort } = launch;
  const address = addressOf(launch);
  try {
    const ready = await waitUntil(async () => exit !== undefined || (await isAnswering(address)), {
      timeoutMs: READY_TIMEOUT_MS,
      pollMs: READY_POLL_MS,
      signal,
    });
    if (exit !== undefined || !ready) throw startFailed(launch, exit, logStart);
    await keepHistories(address);
  } catch (error) {
    if (child.pid !== undefined) await terminateServer(files, { pid: child.pid });
    throw error;
  }
  return {
    pid: child.pid ?? 0,
    port,
    ...(uiPort === undefined ? {} : { uiPort }),
    startedAt,
    cliVersion: launch.cli.version,
  };
}

function spawnServer(launch: ServerLaunch, startedAt: string): ChildProcess {
  const { files, cli, port, uiPort } = launch;
  const state = { port, uiPort, startedAt, cliVersion: cli.version };
  const log = openSync(files.log, 'a', 0o600);
  try {
    const record = [files.state, '{"pid":', `,${JSON.stringify(state).slice(1)}`];
    const child = spawn(
      '/bin/sh',
      ['-c', RECORD_AND_EXEC, 'weldline-server', ...record, cli.path, ...serverArguments(launch)],
      {
        cwd: files.directory,
        detached: true,
        env: childVariables({ TEMPORAL_VERSION_CHECK_DISABLED: '1' }),
        stdio: ['ignore', log, log],
      },
    );
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

function serverArguments({ files, cli, port, uiPort }: ServerLaunch): string[] {
  const ui =
    uiPort === undefined
      ? ['--headless']
      : [
          ...['--ui-ip', '127.0.0.1', '--ui-port', String(uiPort)],
          ...(isOlder(cli.version, NEWS_FLAG_SINCE) ? [] : ['--ui-disable-news-fetch']),
        ];
  return [
    ...['server', 'start-dev', '--db-filename', files.database],
    ...['--ip', '127.0.0.1', '--port', String(port), ...ui],
    ...['--log-level', 'warn', '--disable-config-env', '--disable-config-file'],
    ...Object.entries(SEARCH_ATTRIBUTES).flatMap(([name, type]) => [
      '--search-attribute',
      `${name}=${type}`,
    ]),
  ];
}

export function addressOf({ port }: Pick<ServerState, 'port'>): string {
  return `127.0.0.1:${port}`;
}

export function uiAddressOf({ uiPort }: Pick<ServerState, 'uiPort'>): string | undefined {
  return uiPort === undefined ? undefined : `http://127.0.0.1:${uiPort}`;
}

/** Whether a Temporal frontend answers there and knows the namespace. */
export async function isAnswering(address: string): Promise<boolean> {
  // A refused gRPC connection is only tried again after a second or two; this one knows at once.
  if (!(await isListening(address))) return false;
  return await withConnection(address, async ({ workflowService }) => {
    await workflowService.describeNamespace({ namespace: SERVER_NAMESPACE });
  });
}

async function isListening(address: string): Promise<boolean> {
  const [host = '', port] = address.split(':');
  return await new Promise((settle) => {
    const socket = connect({ host, port: Number(port), timeout: CALL_TIMEOUT_MS });
    const finish = (isOpen: boolean) => {
      socket.destroy();
      settle(isOpen);
    };
    socket.once('connect', () => finish(true));
    socket.once('timeout', () => finish(false));
    socket.once('error', () => finish(false));
  });
}

/** Best effort: a shorter retention only shortens what `list` shows of past releases. */
async function keepHistories(address: string): Promise<void> {
  await withConnection(address, async ({ workflowService }) => {
    const config = { workflowExecutionRetentionTtl: msToTs(RETENTION) };
    await workflowService.updateNamespace({ namespace: SERVER_NAMESPACE, config });
  });
}

async function withConnection(
  address: string,
  call: (connection: Connection) => Promise<void>,
): Promise<boolean> {
  let connection: Connection | undefined;
  try {
    connection = await Connection.connect({
      address,
      connectTimeout: CALL_TIMEOUT_MS,
      // A proxy from the environment has no business on the loopback.
      channelArgs: { 'grpc.enable_http_proxy': 0 },
    });
    const connected = connection;
    await connected.withDeadline(Date.now() + CALL_TIMEOUT_MS, () => call(connected));
    return true;
  } catch {
    return false;
  } finally {
    await connection?.close();
  }
}

/** Asks the server to stop, and kills it when it does not; returns when it is gone. */
export async function terminateServer(
  files: ServerFiles,
  server: Pick<ServerState, 'pid'>,
): Promise<void> {
  const identity = identityOf(server.pid);
  if (identity === undefined || !isServerAlive(files, server)) return;
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    try {
      process.kill(server.pid, signal);
    } catch (error) {
      if (systemErrorCode(error) === 'ESRCH') return;
      throw error;
    }
    const wait = { timeoutMs: TERMINATE_TIMEOUT_MS, pollMs: TERMINATE_POLL_MS };
    if (await waitUntil(() => !isRunning(identity), wait)) return;
  }
}

/** What is known to keep the server from starting, and what a person does about it. */
const START_FAILURES: readonly (readonly [pattern: RegExp, advice: (f: ServerFiles) => string])[] =
  [
    [
      /not a database|malformed|database schema|no such table/i,
      ({ database }) =>
        `Its database ${database} is damaged. Move it away to start with an empty one; what ` +
        'running releases have merged so far is on disk and is found again.',
    ],
    [
      /database is locked|SQLITE_BUSY/i,
      ({ database }) => `Another program has its database ${database} open. End that program.`,
    ],
    [
      /unable to open database|readonly database|permission denied/i,
      ({ directory }) => `Make ${directory} and the files in it readable and writable.`,
    ],
    [/no space left|disk is full/i, ({ directory }) => `Free space on the disk of ${directory}.`],
    [
      /unknown flag/i,
      () => 'This Temporal CLI lacks a needed option. Update it, or unset WELDLINE_TEMPORAL_CLI.',
    ],
  ];

function startFailed(
  { files, cli }: ServerLaunch,
  exit: string | undefined,
  logStart: number,
): WeldlineError {
  const tail = logTail(files.log, logStart);
  const advice = START_FAILURES.find(([pattern]) => pattern.test(tail))?.[1](files) ?? '';
  const how = exit === undefined ? `no answer in ${READY_TIMEOUT_MS / 1000} s` : exit;
  return new WeldlineError(
    'temporal.start-failed',
    `The embedded Temporal server (${cli.path}) did not start: ${how}. ${advice}\n` +
      `The end of ${files.log}:\n${tail.replace(/^/gm, '  ')}`,
    { details: { addressInUse: /address already in use/i.test(tail) } },
  );
}

/** The last lines that this start wrote. */
function logTail(path: string, start: number): string {
  const end = fileBytes(path);
  const from = Math.max(start, end - LOG_TAIL_BYTES);
  const buffer = Buffer.alloc(Math.max(end - from, 0));
  const file = openSync(path, 'r');
  try {
    readSync(file, buffer, 0, buffer.length, from);
  } finally {
    closeSync(file);
  }
  const lines = buffer.toString('utf8').trimEnd().split('\n').slice(-LOG_TAIL_LINES);
  return lines.map((line) => line.slice(0, 500)).join('\n');
}
