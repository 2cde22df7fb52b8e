import type { RecipeEndpoint } from '../config/release-quality.ts';
import type { Secret } from '../config/secret.ts';
import type { CandidateStep } from './candidate.ts';
import { startEndpointRunner } from './runners/endpoint-runner.ts';

export interface RequireServedModelsOptions {
  readonly candidates: readonly CandidateStep[];
  readonly endpoint: RecipeEndpoint | undefined;
  readonly key?: Secret | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Asks an endpoint before the merge for the models that can be there by then: the base and adapters on
 * it. What is made later may be loaded later.
 *
 * @throws WeldlineError `evaluate.endpoint-failed` if it does not answer or lacks one
 */
export async function requireServedModels(options: RequireServedModelsOptions): Promise<void> {
  const { candidates, endpoint, key, signal } = options;
  if (endpoint === undefined) return;
  for (const { id, kind, runner } of candidates) {
    const model = endpoint.models[id];
    const isThere = kind === 'base' || kind === 'adapter';
    if (runner !== 'endpoint' || !isThere || model === undefined) continue;
    const served = await startEndpointRunner({ url: endpoint.url, model, key, signal });
    await served.close();
  }
}
