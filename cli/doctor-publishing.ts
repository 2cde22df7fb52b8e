import { checkSigning } from '../activities/check-targets.ts';
import type { Environment } from '../config/environment.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import type { Recipe } from '../config/recipe.ts';
import { WeldlineError } from '../engine/errors.ts';
import { createPublisher } from '../publishers/create-publisher.ts';
import type { DoctorCheck } from '../tools/doctor.ts';

/**
 * What a recipe needs to sign and to publish, as far as this machine alone can tell: whether a server
 * lets it in, preflight asks.
 */
export async function diagnosePublishing(
  recipe: Recipe,
  environment: Environment,
): Promise<readonly DoctorCheck[]> {
  const checks: DoctorCheck[] = [];
  const { sign } = recipe;
  if (sign !== undefined) {
    const name = sign === 'key' ? 'Signing key' : 'Signing identity';
    const path = sign === 'key' ? environment.signing?.keyFile : undefined;
    const found = await stateOf(async () => void (await checkSigning(recipe, environment)));
    checks.push({ id: 'signing', name, needed: true, ...(path && { path }), ...found });
  }
  for (const target of recipe.publish) {
    const kind = Object.keys(target).find((key) => key !== 'aliases' && key !== 'artefacts');
    const found = await stateOf(() => checkTarget(target, environment));
    checks.push({ id: 'target', name: `Target ${kind}`, needed: true, ...found });
  }
  return checks;
}

/** @returns what it is called */
async function checkTarget(target: PublishTarget, environment: Environment): Promise<string> {
  const { name } = await createPublisher(target, environment);
  if ('hub' in target && environment.hub.token === undefined) {
    throw new WeldlineError(
      'publish.unauthorized',
      `Nobody may write to ${name} without a token: set HF_TOKEN to one with write access.`,
    );
  }
  return name;
}

async function stateOf(
  look: () => Promise<string | undefined>,
): Promise<Pick<DoctorCheck, 'state' | 'note' | 'mend'>> {
  try {
    const note = await look();
    return { state: 'ok', ...(note !== undefined && { note }) };
  } catch (error) {
    if (!(error instanceof WeldlineError)) throw error;
    return { state: 'missing', mend: error.message };
  }
}
