/**
 * A program: runs another one, and ends it with everything that it started when weldline is gone,
 * however that died. Weldline starts it as the leader of a process group of its own, holding one
 * end of an IPC channel: the channel breaks when weldline dies, and the whole group is killed.
 *
 *     node leash.ts PROGRAM [ARGUMENT …]
 *
 * How the program ended goes through the channel as a `LeashReport`. What the program has left
 * running by then is killed too. Standard streams are the program's; this one reads and writes none.
 */
import { spawn } from 'node:child_process';
import process from 'node:process';

export interface LeashReport {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Why the program could not be started, such as `ENOENT`. */
  readonly startError?: string;
}

function killGroup(): void {
  process.kill(-process.pid, 'SIGKILL');
}

function report(ending: LeashReport): void {
  process.send?.(ending, killGroup);
}

const [, , file = '', ...args] = process.argv;
process.on('disconnect', killGroup);
// Sent to the whole group, for the program to clean up: this one stays to see it end.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});

const program = spawn(file, args, { stdio: 'inherit' });
program.on('error', (error: NodeJS.ErrnoException) => {
  report({ exitCode: null, signal: null, startError: error.code ?? error.message });
});
program.on('exit', (exitCode, signal) => report({ exitCode, signal }));
