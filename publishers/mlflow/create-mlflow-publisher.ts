import type { Environment } from '../../config/environment.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { basicAuthorization } from '../json-server.ts';
import type { Patience } from '../publisher.ts';
import { MlflowPublisher, type MlflowTarget } from './mlflow-publisher.ts';

/**
 * The publisher of an `mlflow` target. As in MLflow's own client a token comes before a name and a
 * password.
 * @throws WeldlineError `config.invalid` without the address of a server
 */
export function createMlflowPublisher(
  target: {
    readonly model: string;
    readonly trackingUri?: string;
    readonly source?: MlflowTarget['source'];
  },
  environment: Environment['mlflow'],
  patience: Patience,
): MlflowPublisher {
  const { model, source, trackingUri = environment.trackingUri } = target;
  const { username, password, token } = environment;
  if (trackingUri === undefined || !/^https?:/.test(trackingUri) || !URL.canParse(trackingUri)) {
    throw new WeldlineError(
      'config.invalid',
      `Where MLflow's server is, is ${trackingUri === undefined ? 'not said' : 'no URL of HTTP'}. Set ` +
        'MLFLOW_TRACKING_URI, or tracking_uri in the recipe, to one such as http://127.0.0.1:5000.',
    );
  }
  const basic =
    username === undefined ? undefined : basicAuthorization(username, password?.reveal() ?? '');
  const authorization = token === undefined ? basic : `Bearer ${token.reveal()}`;
  return new MlflowPublisher(
    { model, trackingUri, authorization, ...(source && { source }) },
    patience,
  );
}
