import { readCiIdentity } from './ci-identity.ts';
import type { Environment } from './environment.ts';
import { Secret } from './secret.ts';
import { type Get, invalid, readEndpoint, toPath } from './variables.ts';

/** What publishing and signing take from the environment, by the names of the tools of each target. */
export function readPublishing(
  get: Get,
): Pick<Environment, 'signing' | 'identity' | 's3' | 'dockerConfig' | 'mlflow' | 'ollamaEndpoint'> {
  const secret = (name: string) => {
    const value = get(name);
    return value === undefined ? undefined : new Secret(value);
  };
  const keyFile = get('WELDLINE_SIGNING_KEY');
  const passphrase = secret('WELDLINE_SIGNING_PASSPHRASE');
  const trackingUri = get('MLFLOW_TRACKING_URI');
  const username = get('MLFLOW_TRACKING_USERNAME');
  const password = secret('MLFLOW_TRACKING_PASSWORD');
  const token = secret('MLFLOW_TRACKING_TOKEN');
  const ollama = get('OLLAMA_HOST');
  const identity = readCiIdentity(get);
  return {
    ...(keyFile === undefined
      ? {}
      : {
          signing: {
            keyFile: toPath('WELDLINE_SIGNING_KEY', keyFile),
            ...(passphrase && { passphrase }),
          },
        }),
    ...(identity && { identity }),
    s3: readS3(get),
    dockerConfig: toPath('DOCKER_CONFIG', get('DOCKER_CONFIG') ?? '~/.docker'),
    mlflow: {
      ...(trackingUri && { trackingUri }),
      ...(username && { username }),
      ...(password && { password }),
      ...(token && { token }),
    },
    ...(ollama && { ollamaEndpoint: readOllamaHost(ollama) }),
  };
}

/** By the names that AWS's own tools have for it, the narrower one first. */
function readS3(get: Get): Environment['s3'] {
  const name = ['AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL'].find((each) => get(each) !== undefined);
  return name === undefined ? {} : { endpoint: readEndpoint(name, get(name) ?? '') };
}

/** As Ollama's own client reads it: without a scheme HTTP, and then without a port Ollama's. */
function readOllamaHost(value: string): string {
  const host = /:\d+$/.test(value) ? value : `${value}:11434`;
  const url = value.includes('://') ? value : `http://${host}`;
  if (URL.canParse(url) && /^https?:/.test(url)) return url;
  throw invalid('OLLAMA_HOST', 'is not a host', 'a host such as 127.0.0.1:11434, or a URL');
}
