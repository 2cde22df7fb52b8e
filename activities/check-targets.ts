import { createSigner, type SigningEnvironment } from '../attest/signer.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import type { Recipe } from '../config/recipe.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import { planConversions } from '../conversion/plan-conversions.ts';
import { WeldlineError } from '../engine/errors.ts';
import { createPublisher, type PublishEnvironment } from '../publishers/create-publisher.ts';
import type { ArtefactDescription, Publisher } from '../publishers/publisher.ts';
import { artefactId } from './artefact-contents.ts';

/**
 * Checks that every artefact of a release can go where the recipe sends it: targets are reached and
 * can be written to, and no version is taken.
 *
 * @param release name of the release's artefacts
 * @param planDigest where it is known; what another plan made is then a conflict
 * @throws WeldlineError `publish.*`; `recipe.invalid` for a target that would get nothing, or not
 *   what the recipe sends there
 */
export async function checkTargets(
  recipe: Recipe,
  release: string,
  planDigest: string | undefined,
  environment: PublishEnvironment,
  signal: AbortSignal,
): Promise<void> {
  const steps = stepsOf(recipe);
  requireArtefacts(recipe, steps);
  for (const target of recipe.publish) {
    const publisher = await createPublisher(target, environment);
    const parts = partsOf(target, steps);
    requireAccepted(publisher, target, parts);
    for (const { part, kind } of parts) {
      if (!publisher.accepts(kind)) continue;
      await publisher.check(artefactId(release, part), planDigest, signal);
    }
  }
}

/** A target of a recipe, and which artefacts go there. */
export interface PlannedTarget {
  readonly target: PublishTarget;
  readonly parts: readonly string[];
}

/**
 * What goes to which target, as far as the recipe alone says it.
 * @throws WeldlineError `recipe.invalid` if a target is sent what is never made
 */
export function plannedTargets(recipe: Recipe): readonly PlannedTarget[] {
  const steps = stepsOf(recipe);
  requireArtefacts(recipe, steps);
  const partsAt = (target: PublishTarget): readonly string[] =>
    partsOf(target, steps)
      .filter(({ kind }) => !('ollama' in target) || kind === 'gguf')
      .map(({ part }) => part);
  return recipe.publish.map((target) => {
    const parts = partsAt(target);
    if (!('mlflow' in target)) return { target, parts };
    const held = holdersOf(target, recipe.publish).flatMap(partsAt);
    return { target, parts: parts.filter((part) => held.includes(part)) };
  });
}

function stepsOf({ adapters, conversions = [] }: Recipe): readonly ConversionStep[] {
  return planConversions({ conversions, adapterIds: adapters.map(({ id }) => id) });
}

interface Part {
  readonly part: string;
  readonly kind: ArtefactDescription['kind'];
}

/** What a target names and nothing makes would be missed by nobody until somebody looks for it. */
function requireArtefacts({ publish }: Recipe, steps: readonly ConversionStep[]): void {
  const made = allParts(steps).map(({ part }) => part);
  for (const target of publish) {
    const unknown = target.artefacts?.find((artefact) => !made.includes(artefact));
    if (unknown !== undefined) {
      throw new WeldlineError(
        'recipe.invalid',
        `The recipe publishes "${unknown}", which it does not make: there is ${made.join(', ')}. ` +
          'Mend "artefacts" below "publish", or add the conversion.',
      );
    }
    if (!('mlflow' in target) || target.artefacts === undefined) continue;
    const holders = holdersOf(target, publish);
    const missing = target.artefacts.find(
      (artefact) => !holders.some(({ artefacts }) => artefacts?.includes(artefact) ?? true),
    );
    if (missing === undefined) continue;
    throw new WeldlineError(
      'recipe.invalid',
      `The recipe registers "${missing}" in MLflow and publishes it nowhere that MLflow could point ` +
        'at. Mend "artefacts" below "publish".',
    );
  }
}

/** Where files are that MLflow can point at. */
const SOURCES = ['hub', 's3', 'oci'] as const;

function holdersOf(
  { mlflow: { source } }: Extract<PublishTarget, { readonly mlflow: unknown }>,
  targets: readonly PublishTarget[],
): readonly PublishTarget[] {
  const kinds = source === undefined ? SOURCES : [source];
  return targets.filter((other) => kinds.some((kind) => kind in other));
}

function requireAccepted(
  publisher: Publisher,
  { artefacts }: PublishTarget,
  parts: readonly Part[],
): void {
  const refused = parts.filter(({ kind }) => !publisher.accepts(kind));
  if (artefacts === undefined ? refused.length < parts.length : refused.length === 0) return;
  const what = artefacts === undefined ? 'anything that this recipe makes' : refused[0]?.part;
  throw new WeldlineError(
    'recipe.invalid',
    `${publisher.name} cannot hold ${what}: Ollama takes GGUF files. Add a conversion to GGUF, or ` +
      'mend "artefacts" below "publish".',
  );
}

function partsOf({ artefacts }: PublishTarget, steps: readonly ConversionStep[]): readonly Part[] {
  const parts = allParts(steps);
  return artefacts === undefined ? parts : parts.filter(({ part }) => artefacts.includes(part));
}

function allParts(steps: readonly ConversionStep[]): readonly Part[] {
  return [
    { part: 'merged', kind: 'merged' as const },
    ...steps
      .filter((step) => step.kind !== 'gguf' || step.wanted)
      .map(({ id, kind }) => ({ part: id, kind })),
  ];
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
