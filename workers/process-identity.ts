import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

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
  try {
    return HAS_PROC
      ? readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      : ps(pid, 'command=');
  } catch {
    return '';
  }
}

/** Field 3 (state) and field 22 (start in clock ticks since boot) of proc_pid_stat(5). */
function procFields(pid: number): { state: string; start: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command in field 2 may hold blanks and parentheses; nothing after it does.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0] ?? '', start: fields[19] ?? '' };
  } catch {
    return undefined;
  }
}

function psFields(pid: number): { state: string; start: string } | undefined {
  try {
    const [state = '', ...start] = ps(pid, 'state=,lstart=').trim().split(/\s+/);
    return { state, start: start.join(' ') };
  } catch {
    return undefined;
  }
}

function ps(pid: number, format: string): string {
  return execFileSync('ps', ['-ww', '-o', format, '-p', String(pid)], {
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}
