import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { TestServer } from './temporal-server.ts';

const SCRIPT = fileURLToPath(new URL('../../workers/start.ts', import.meta.url));

export interface StartedWorkerOptions {
  readonly roles?: readonly string[];
  readonly variables: Readonly<Record<string, string>>;
}

/** A worker as a process manager starts it: by its roles, told of the server by the environment. */
export class StartedWorker {
  /** What it logged and is JSON. */
  readonly log: Readonly<Record<string, unknown>>[] = [];
  readonly #child: ChildProcess;
  readonly #exit: Promise<unknown>;
  readonly #working = Promise.withResolvers<Readonly<Record<string, unknown>>>();

  constructor({ address, namespace }: TestServer, { roles = [], variables }: StartedWorkerOptions) {
    const args = [SCRIPT, ...roles.flatMap((role) => ['--role', role])];
    const server = { TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace };
    this.#child = spawn(process.execPath, args, {
      env: { ...process.env, ...server, ...variables, WELDLINE_LOG_LEVEL: 'info' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#exit = once(this.#child, 'exit');
    const lines = createInterface({ input: this.#child.stderr as NodeJS.ReadableStream });
    lines.on('line', (line) => this.#read(line));
    lines.on('close', () => {
      const log = this.log.map((entry) => JSON.stringify(entry)).join('\n');
      this.#working.reject(new Error(`the worker has ended:\n${log}`));
    });
    this.#working.promise.catch(() => undefined);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** @returns what it says of itself when it begins to work */
  working(): Promise<Readonly<Record<string, unknown>>> {
    return this.#working.promise;
  }

  /** Tells it to stop. @returns its exit status */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    return this.exited();
  }

  /** Ends it as a power cut would. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited();
  }

  async exited(): Promise<number | null> {
    await this.#exit;
    return this.#child.exitCode;
  }

  #read(line: string): void {
    let entry: Record<string, unknown>;
    try {
      entry = JSON.parse(line) as Record<string, unknown>;
    } catch {
      entry = { line };
    }
    this.log.push(entry);
    if (entry['message'] === 'Working') this.#working.resolve(entry);
  }
}
