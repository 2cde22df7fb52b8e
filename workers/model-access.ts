import { join } from 'node:path';
import type { Environment } from '../config/environment.ts';
import { FileDigests } from '../sources/file-digests.ts';
import type { ModelAccess } from '../sources/model-input.ts';

/** How this process reaches models: the hub of the environment and its cache. */
export function modelAccess(environment: Environment): ModelAccess {
  const { hub, home } = environment;
  return {
    hub: { endpoint: hub.endpoint, token: hub.token?.reveal() },
    cacheDirectory: hub.cacheDirectory,
    digests: new FileDigests(join(home, 'cache', 'file-digests.json')),
  };
}
