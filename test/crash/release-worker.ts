/**
 * A process of its own that works on releases until it is killed. Arguments: address of the
 * server, namespace. The environment is that of a user.
 */
import { readEnvironment } from '../../config/environment.ts';
import { createLogger } from '../../workers/logger.ts';
import { startWorkers } from '../../workers/main.ts';

const [address = '', namespace = ''] = process.argv.slice(2);
const environment = readEnvironment();
const workers = await startWorkers({
  environment,
  address,
  namespace,
  logger: createLogger('error'),
});
process.stdout.write('ready\n');
await workers.finished;
