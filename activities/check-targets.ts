import { createSigner, type SigningEnvironment } from '../attest/signer.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import type { Recipe } from '../config/recipe.ts';
import { planConversions } from '../conversion/plan-conversions.ts';
import { WeldlineError } from '../engine/errors.ts';
import { createPublisher, type PublishEnvironment } from '../publishers/create-publisher.ts';
import type { ArtefactDescription, Publisher } from '../publishers/publisher.ts';
import { artefactId } from './artefact-contents.ts';

interface Part {
  /** `merged`, or the id of a conversion. */
  readonly part: string;
  readonly kind: ArtefactDescription['kind'];
}

/**
 * Checks that every artefact of a release can go where the recipe sends it: it is made at all, targets
 * are reached and can be written to, and no version is taken.
 *
 * @param release name of the release's artefacts
 * @param planDigest where it is known; what another plan made is then a conflict
 * @throws WeldlineError `publish.*`; `recipe.invalid` for a target that would get nothing, or not what
 *   it asks for
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
  const parts: readonly Part[] = [
    { part: 'merged', kind: 'merged' },
    ...steps
      .filter((step) => step.kind !== 'gguf' || step.wanted)
      .map(({ id, kind }) => ({ part: id, kind })),
  ];
  const targets = [];
  for (const target of recipe.publish) {
    const publisher = await createPublisher(target, environment);
    targets.push({ publisher, wanted: wantedParts(target, publisher, parts) });
  }
  for (const { publisher, wanted } of targets) {
    for (const { part } of wanted) {
      await publisher.check(artefactId(release, part), planDigest, signal);
    }
  }
}

/** What goes to a target: nobody writes one down to get nothing there, and would not notice. */
function wantedParts(
  { artefacts }: PublishTarget,
  publisher: Publisher,
  parts: readonly Part[],
): readonly Part[] {
  const held = parts.filter(({ kind }) => publisher.accepts(kind));
  const can = `It can have ${held.map(({ part }) => part).join(', ')}.`;
  if (held.length === 0) {
    throw new WeldlineError(
      'recipe.invalid',
      `Nothing that this recipe makes can go to ${publisher.name} (it makes ` +
        `${parts.map(({ part }) => part).join(', ')}): add the conversion that it holds under convert, ` +
        'or remove the target.',
    );
  }
  const missing = artefacts?.find((artefact) => held.every(({ part }) => part !== artefact));
  if (missing !== undefined) {
    const isMade = parts.some(({ part }) => part === missing);
    throw new WeldlineError(
      'recipe.invalid',
      `The recipe sends "${missing}" to ${publisher.name}, ` +
        `${isMade ? 'which cannot hold it' : 'and makes no such artefact'}. ${can}`,
    );
  }
  return artefacts === undefined ? held : held.filter(({ part }) => artefacts.includes(part));
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
