import { randomBytes } from 'node:crypto';
import {
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { commandLineOf, identityOf, isRunning, type ProcessIdentity } from './process-identity.ts';

/** What the embedded server keeps in `<home>/server`. */
export interface ServerFiles {
  directory: string;
  database: string;
  log: string;
  state: string;
  ports: string;
  lock: string;
  leases: string;
}

/** `server.json`: the server that runs, or ran when it died without being asked to. */
export interface ServerState {
  pid: number;
  port: number;
  /** Absent when it runs without the web interface. */
  uiPort?: number;
  /** RFC 3339. */
  startedAt: string;
  cliVersion: string;
}

/** `ports.json`: kept across restarts so that addresses people noted stay true. */
export interface ServerPorts {
  port: number;
  uiPort: number;
}

/** The files of a home that may not exist; nothing is created. */
export function locateServerFiles(home: string): ServerFiles {
  // The real path, so that a home reached through a link still means the same server.
  return serverFiles(existsSync(home) ? realpathSync(home) : home);
}

function serverFiles(home: string): ServerFiles {
  const directory = join(home, 'server');
  return {
    directory,
    database: join(directory, 'temporal.db'),
    log: join(directory, 'server.log'),
    state: join(directory, 'server.json'),
    ports: join(directory, 'ports.json'),
    lock: join(directory, 'lock'),
    leases: join(directory, 'leases'),
  };
}

/** Creates the directories, for this user only: histories hold the paths and names of releases. */
export async function createServerFiles(home: string): Promise<ServerFiles> {
  try {
    await mkdir(serverFiles(home).leases, { recursive: true, mode: 0o700 });
    return locateServerFiles(home);
  } catch (error) {
    throw new WeldlineError(
      'temporal.start-failed',
      `The directory ${join(home, 'server')} of the embedded server cannot be created ` +
        `(${(error as Error).message}). Make it writable, or set WELDLINE_HOME to another place.`,
      { cause: error },
    );
  }
}

export function readState(files: ServerFiles): ServerState | undefined {
  const state = readJson(files.state) as Partial<ServerState> | undefined;
  const isWhole = Number.isSafeInteger(state?.pid) && isPort(state?.port);
  return isWhole ? (state as ServerState) : undefined;
}

/**
 * Whether the server in `state` is alive: a process runs under its id, and it is one that serves
 * this database, not one that was given the id later.
 */
export function isServerAlive(files: ServerFiles, { pid }: Pick<ServerState, 'pid'>): boolean {
  return identityOf(pid) !== undefined && commandLineOf(pid).includes(files.database);
}

export function readPorts(files: ServerFiles): ServerPorts | undefined {
  const ports = readJson(files.ports) as Partial<ServerPorts> | undefined;
  return isPort(ports?.port) && isPort(ports?.uiPort) ? (ports as ServerPorts) : undefined;
}

export async function writePorts(files: ServerFiles, ports: ServerPorts): Promise<void> {
  await writeFile(`${files.ports}.draft`, JSON.stringify(ports));
  await rename(`${files.ports}.draft`, files.ports);
}

/** Registers this process as a user of the server; the lock must be held. */
export function takeLease(files: ServerFiles): string {
  const path = join(files.leases, `${process.pid}-${randomBytes(4).toString('hex')}`);
  writeFileSync(path, JSON.stringify(identityOf(process.pid)));
  return path;
}

/** The live processes that use the server. */
export function leaseHolders(files: ServerFiles): number[] {
  const holders = leasePaths(files)
    .map((path) => readJson(path) as ProcessIdentity | undefined)
    .filter((holder) => holder !== undefined && isRunning(holder))
    .map((holder) => (holder as ProcessIdentity).pid);
  return [...new Set(holders)].sort((a, b) => a - b);
}

/** Removes the leases of processes that died; the lock must be held. */
export function removeStaleLeases(files: ServerFiles): void {
  for (const path of leasePaths(files)) {
    const holder = readJson(path) as ProcessIdentity | undefined;
    if (holder === undefined || !isRunning(holder)) rmSync(path, { force: true });
  }
}

function leasePaths(files: ServerFiles): string[] {
  try {
    return readdirSync(files.leases).map((name) => join(files.leases, name));
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

export function fileBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Undefined for a file that is missing or is no JSON object: both mean that nobody is there. */
function readJson(path: string): object | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function isPort(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) > 0 && (value as number) < 65_536;
}
