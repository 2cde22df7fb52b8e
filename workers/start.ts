#!/usr/bin/env node
/**
 * A worker for process managers: `start.js [--role merge] …`. Needs a Temporal server of one's own
 * (TEMPORAL_ADDRESS or a profile), logs JSON lines, and ends with 0 when it is told to stop. What is
 * under way then writes down what it has, and is handed on; a second signal ends it at once.
 */
import { parseArgs } from 'node:util';
import { readEnvironment, setVariables } from '../config/environment.ts';
import { readTemporalTarget } from '../config/temporal-connection.ts';
import { WeldlineError } from '../engine/errors.ts';
import { toWeldlineError } from '../engine/to-weldline-error.ts';
import { createLogger } from './logger.ts';
import { startWorkers } from './main.ts';
import { readRoles } from './roles.ts';

const FAILED = 1;
const USAGE = 2;
const KILLED = 130;

async function work(): Promise<void> {
  const environment = readEnvironment();
  const roles = readRoles(rolesAskedFor(), environment.worker);
  if (!environment.temporalConfigured) {
    throw new WeldlineError(
      'config.invalid',
      'No Temporal server is named. Set TEMPORAL_ADDRESS, or TEMPORAL_PROFILE.',
    );
  }
  const { address, namespace, ...connection } = readTemporalTarget(setVariables());
  const workers = await startWorkers({
    environment,
    address,
    namespace,
    roles,
    logger: createLogger(environment.logLevel),
    connection,
  });
  let isStopping = false;
  const stop = (): void => {
    if (isStopping) process.exit(KILLED);
    isStopping = true;
    // What it ends with is what `finished` ends with.
    workers.stop().catch(() => undefined);
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  await workers.finished;
}

function rolesAskedFor(): readonly string[] {
  try {
    return parseArgs({ options: { role: { type: 'string', multiple: true } } }).values.role ?? [];
  } catch (error) {
    throw new WeldlineError('cli.usage', (error as Error).message, { cause: error });
  }
}

try {
  await work();
} catch (error) {
  const { code, message } = toWeldlineError(error);
  process.stderr.write(`${JSON.stringify({ level: 'ERROR', code, message })}\n`);
  process.exitCode = code === 'cli.usage' || code === 'config.invalid' ? USAGE : FAILED;
}
