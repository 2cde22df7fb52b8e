import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { execa } from 'execa';

export interface ServiceOptions {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Takes both streams. */
  readonly logPath: string;
  /** Who runs it; who runs this if not given. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
}

/** A service that is killed and started again, as its supervisor would. */
export class ServiceProcess {
  readonly #options: ServiceOptions;
  #child: ChildProcess | undefined;
  /** Starts after the first. */
  restarts = -1;

  constructor(options: ServiceOptions) {
    this.#options = options;
  }

  get isRunning(): boolean {
    const child = this.#child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  start(): void {
    const { program, args, env, logPath, user } = this.#options;
    const log = openSync(logPath, 'a');
    this.#child = spawn(program, args, { env, stdio: ['ignore', log, log], ...user });
    closeSync(log);
    this.restarts += 1;
  }

  /** Ends it, and all processes that it started, as a power cut would. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.isRunning) return;
    const { stdout } = await execa('ps', ['-o', 'pid=', '--ppid', String(child.pid)], {
      reject: false,
    });
    const exit = once(child, 'exit');
    // First the one that would start the others again.
    child.kill('SIGKILL');
    for (const pid of stdout.split('\n').map(Number)) {
      try {
        if (pid > 0) process.kill(pid, 'SIGKILL');
      } catch {
        // It ended with its parent.
      }
    }
    await exit;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child === undefined || !this.isRunning) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exit;
  }
}
