import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findFreePort } from '../../workers/free-port.ts';
import { waitFor } from './wait-for.ts';

/** A real MLflow with a database of its own. */
export interface MlflowServer {
  readonly origin: string;
  close(): Promise<void>;
}

/** Made by test/services/setup.py. */
export const SERVICES_PYTHON = fileURLToPath(
  new URL('../../.services/python/bin/python', import.meta.url),
);
/** It imports for half a minute where the machine is busy. */
const START_LIMIT_MS = 150_000;

export async function startMlflowServer(): Promise<MlflowServer> {
  const directory = await mkdtemp(join(tmpdir(), 'weldline-mlflow-'));
  const port = await findFreePort();
  const args = ['server', '--host', '127.0.0.1', '--port', String(port), '--workers', '1'];
  const store = ['--backend-store-uri', `sqlite:///${join(directory, 'mlflow.db')}`];
  const output: Buffer[] = [];
  // A group of its own, since the server starts others.
  const running = spawn(SERVICES_PYTHON, ['-m', 'mlflow', ...args, ...store], {
    cwd: directory,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      ...{ MLFLOW_SERVER_ENABLE_JOB_EXECUTION: 'false', MLFLOW_DISABLE_TELEMETRY: 'true' },
    },
  });
  for (const stream of [running.stdout, running.stderr]) {
    stream.on('data', (piece: Buffer) => output.push(piece));
  }
  const ended = new Promise<void>((resolve) => running.once('exit', () => resolve()));
  const kill = (): void => {
    try {
      process.kill(-(running.pid ?? 0), 'SIGKILL');
    } catch {
      // It has ended.
    }
  };
  process.once('exit', kill);
  const origin = `http://127.0.0.1:${port}`;
  const close = async (): Promise<void> => {
    process.removeListener('exit', kill);
    kill();
    await ended;
    await rm(directory, { recursive: true, force: true });
  };
  const isUp = async (): Promise<true | undefined> => {
    if (running.exitCode !== null) {
      throw new Error(`MLflow has ended: ${Buffer.concat(output).toString('utf8').slice(-2000)}`);
    }
    const answer = await fetch(`${origin}/health`).catch(() => undefined);
    return answer?.ok === true ? true : undefined;
  };
  try {
    await waitFor('MLflow', isUp, START_LIMIT_MS);
  } catch (error) {
    await close();
    throw error;
  }
  return { origin, close };
}
