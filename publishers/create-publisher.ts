import type { Environment } from '../config/environment.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import { WeldlineError } from '../engine/errors.ts';
import { PATIENCE, type Patience, type Publisher } from './publisher.ts';

/** What publishers take from the environment. */
export type PublishEnvironment = Pick<
  Environment,
  'hub' | 's3' | 'dockerConfig' | 'mlflow' | 'ollamaEndpoint'
>;

/** The publisher of one target of a recipe; code of a target is loaded when it is used. */
export async function createPublisher(
  target: PublishTarget,
  environment: PublishEnvironment,
  patience: Patience = PATIENCE,
): Promise<Publisher> {
  if ('s3' in target) {
    const { createS3Publisher } = await import('./s3/s3-publisher.ts');
    return createS3Publisher({ ...environment.s3, ...target.s3 }, { patience });
  }
  if ('directory' in target) {
    const { DirectoryPublisher } = await import('./directory/directory-publisher.ts');
    return new DirectoryPublisher(target.directory.path);
  }
  throw new WeldlineError('internal.bug', `no publisher for ${Object.keys(target).join(', ')}`);
}
