import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { TestServer } from './temporal-server.ts';

const SCRIPT = fileURLToPath(new URL('../crash/release-worker.ts', import.meta.url));

/** A worker in a process of its own, to be killed. */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #ready: Promise<unknown>;

  constructor({ address, namespace }: TestServer, variables: Readonly<Record<string, string>>) {
    this.#child = spawn(process.execPath, [SCRIPT, address, namespace], {
      env: { ...process.env, ...variables },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#ready = once(this.#child.stdout as NodeJS.ReadableStream, 'data');
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async ready(): Promise<this> {
    await this.#ready;
    return this;
  }

  /** Ends it as a power cut would. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }
}
