import type { Environment } from '../config/environment.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import { WeldlineError } from '../engine/errors.ts';
import { PATIENCE, type Patience, type Publisher } from './publisher.ts';

/** What publishers take from the environment. */
export type PublishEnvironment = Pick<
  Environment,
  'hub' | 's3' | 'dockerConfig' | 'mlflow' | 'ollamaEndpoint'
>;

/** Where Ollama listens unless it is told otherwise. */
const OLLAMA_ENDPOINT = 'http://127.0.0.1:11434';

/** The publisher of one target of a recipe; code of a target is loaded when it is used. */
export async function createPublisher(
  target: PublishTarget,
  environment: PublishEnvironment,
  patience: Patience = PATIENCE,
): Promise<Publisher> {
  if ('directory' in target) {
    const { DirectoryPublisher } = await import('./directory/directory-publisher.ts');
    return new DirectoryPublisher(target.directory.path);
  }
  if ('hub' in target) {
    const { HubPublisher } = await import('./hub/hub-publisher.ts');
    const { endpoint, token } = environment.hub;
    return new HubPublisher(target.hub, { endpoint, token, patience });
  }
  if ('s3' in target) {
    const { createS3Publisher } = await import('./s3/s3-publisher.ts');
    return createS3Publisher({ ...environment.s3, ...target.s3 }, { patience });
  }
  if ('oci' in target) {
    const { openOciPublisher } = await import('./oci/oci-publisher.ts');
    return openOciPublisher(target.oci, environment.dockerConfig, patience);
  }
  if ('ollama' in target) {
    const { OllamaPublisher } = await import('./ollama/ollama-publisher.ts');
    const { model, endpoint = environment.ollamaEndpoint ?? OLLAMA_ENDPOINT } = target.ollama;
    return new OllamaPublisher({ model, endpoint }, patience);
  }
  if ('mlflow' in target) {
    const { createMlflowPublisher } = await import('./mlflow/create-mlflow-publisher.ts');
    return createMlflowPublisher(target.mlflow, environment.mlflow, patience);
  }
  throw new WeldlineError('internal.bug', `no publisher for ${Object.keys(target).join(', ')}`);
}
