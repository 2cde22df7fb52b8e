import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { systemErrorCode } from '../engine/errors.ts';

/** A process for good: ids are used again, an id with a start time is not. */
export interface ProcessIdentity {
  pid: number;
  /** Opaque; equal for the same process only. */
  start: string;
}

const HAS_PROC = existsSync('/proc/self/stat');

/** Who runs under `pid` now; undefined when nobody does or only a zombie is left. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  const fields = HAS_PROC ? procFields(pid) : psFields(pid);
  return fields === undefined || fields.state.startsWith('Z')
    ? undefined
    : { pid, start: fields.start };
}

export function isRunning(identity: ProcessIdentity): boolean {
  return identityOf(identity.pid)?.start === identity.start;
}

/** The command line of a live process, its arguments separated by blanks; '' when there is none. */
export function commandLineOf(pid: number): string {
  if (HAS_PROC) return (readProc(pid, 'cmdline') ?? '').replaceAll('\0', ' ');
  return ps(pid, 'command=') ?? '';
}

/** Field 3 (state) and field 22 (start in clock ticks since boot) of proc_pid_stat(5). */
function procFields(pid: number): { state: string; start: string } | undefined {
  const stat = readProc(pid, 'stat');
  if (stat === undefined) return undefined;
  // The command in field 2 may hold blanks and parentheses; nothing after it does.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', start: fields[19] ?? '' };
}

/** Undefined when there is no such process; no other failure means that. */
function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(systemErrorCode(error) ?? '')) return undefined;
    throw error;
  }
}

function psFields(pid: number): { state: string; start: string } | undefined {
  const line = ps(pid, 'state=,lstart=');
  if (line === undefined) return undefined;
  const [state = '', ...start] = line.trim().split(/\s+/);
  return { state, start: start.join(' ') };
}

/** One line about a process; undefined when there is no such process (ps then exits with 1). */
function ps(pid: number, format: string): string | undefined {
  const { status, stdout, error } = spawnSync('ps', ['-ww', '-o', format, '-p', String(pid)], {
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (error !== undefined) throw error;
  return status === 0 ? stdout : undefined;
}
