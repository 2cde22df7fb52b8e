import { readEnvironment } from '../config/environment.ts';
import { createLogger } from '../workers/logger.ts';
import { readRoles } from '../workers/roles.ts';
import { EXIT } from './exit-codes.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';

export interface WorkerCommand {
  /** What it does; everything if not given. */
  readonly role?: readonly string[];
}

/** `weldline worker`: does the work of releases until it is stopped. Logs JSON lines. */
export async function runWorker({ role = [] }: WorkerCommand, output: Output): Promise<number> {
  const environment = readEnvironment();
  const roles = readRoles(role, environment.worker);
  return withSession(output, async (session, signal) => {
    const logger = createLogger(environment.logLevel);
    const workers = await session.startWorkers({ logger, roles });
    output.note('Working. Stop with Ctrl-C; what is under way goes on with the next worker.');
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([stopped, workers.finished]);
    await workers.stop();
    session.lost.throwIfAborted();
    return EXIT.ok;
  });
}
