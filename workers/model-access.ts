import { join } from 'node:path';
import type { Environment } from '../config/environment.ts';
import { FileDigests } from '../sources/file-digests.ts';
import type { ModelAccess } from '../sources/model-input.ts';
import type { RemoteModel, RemoteSource } from '../sources/remote-source.ts';

/** How this process reaches models: the hub of the environment and its cache, and other places. */
export function modelAccess(environment: Environment): ModelAccess {
  const { hub, home } = environment;
  const sources = new Map<RemoteModel['kind'], Promise<RemoteSource>>();
  return {
    hub: { endpoint: hub.endpoint, token: hub.token?.reveal() },
    cacheDirectory: hub.cacheDirectory,
    modelsDirectory: join(home, 'cache', 'models'),
    digests: new FileDigests(join(home, 'cache', 'file-digests.json')),
    remote: (kind) => {
      const source = sources.get(kind) ?? loadSource(kind, environment);
      sources.set(kind, source);
      return source;
    },
  };
}

/** Their libraries take a while to load and are needed by few. */
async function loadSource(
  kind: RemoteModel['kind'],
  environment: Environment,
): Promise<RemoteSource> {
  if (kind === 's3') return (await import('../sources/s3-source.ts')).s3Source(environment.s3);
  if (kind === 'oci') {
    return (await import('../sources/oci-source.ts')).ociSource(environment.dockerConfig);
  }
  return (await import('../sources/http-source.ts')).httpSource();
}
