import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

interface UserEvent {
  address?: string;
  restarted?: number;
  released?: boolean;
  lost?: string;
}

/** Another process that uses the embedded server of `home`. */
export class ServerUser {
  readonly process: ChildProcess;
  readonly #events: AsyncIterator<string>;

  constructor(home: string, cli: { path: string; version: string }) {
    const script = fileURLToPath(new URL('./server-user.ts', import.meta.url));
    this.process = spawn(process.execPath, [script, home, cli.path, cli.version], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    if (this.process.stdout === null) throw new Error('no standard output');
    this.#events = createInterface(this.process.stdout)[Symbol.asyncIterator]();
  }

  async next(): Promise<UserEvent> {
    const { value, done } = await this.#events.next();
    if (done) throw new Error('the process ended early');
    return JSON.parse(value) as UserEvent;
  }

  async release(): Promise<void> {
    const exit = once(this.process, 'exit');
    this.process.stdin?.write('\n');
    await exit;
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exit = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await exit;
  }
}
