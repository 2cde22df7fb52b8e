import { createSigner, type SigningEnvironment } from '../attest/signer.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import type { Recipe } from '../config/recipe.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import { planConversions } from '../conversion/plan-conversions.ts';
import { createPublisher, type PublishEnvironment } from '../publishers/create-publisher.ts';
import type { ArtefactDescription } from '../publishers/publisher.ts';
import { artefactId } from './artefact-contents.ts';

/**
 * Checks that every artefact of a release can go where the recipe sends it: targets are reached and
 * can be written to, and no version is taken.
 *
 * @param release name of the release's artefacts
 * @param planDigest where it is known; what another plan made is then a conflict
 * @throws WeldlineError `publish.*`
 */
export async function checkTargets(
  recipe: Recipe,
  release: string,
  planDigest: string | undefined,
  environment: PublishEnvironment,
  signal: AbortSignal,
): Promise<void> {
  const adapterIds = recipe.adapters.map(({ id }) => id);
  const steps = planConversions({ conversions: recipe.conversions ?? [], adapterIds });
  for (const target of recipe.publish) {
    const publisher = await createPublisher(target, environment);
    for (const { part, kind } of partsOf(target, steps)) {
      if (!publisher.accepts(kind)) continue;
      await publisher.check(artefactId(release, part), planDigest, signal);
    }
  }
}

function partsOf(
  { artefacts }: PublishTarget,
  steps: readonly ConversionStep[],
): readonly { readonly part: string; readonly kind: ArtefactDescription['kind'] }[] {
  const parts = [
    { part: 'merged', kind: 'merged' as const },
    ...steps
      .filter((step) => step.kind !== 'gguf' || step.wanted)
      .map(({ id, kind }) => ({ part: id, kind })),
  ];
  return artefacts === undefined ? parts : parts.filter(({ part }) => artefacts.includes(part));
}

/**
 * Checks that a release can be signed before hours are spent on it.
 * @returns what a person should know of the signer
 * @throws WeldlineError `attest.*`
 */
export async function checkSigning(
  { sign }: Recipe,
  identity: SigningEnvironment,
): Promise<readonly string[]> {
  return sign === undefined ? [] : (await createSigner(sign, identity)).warnings;
}
