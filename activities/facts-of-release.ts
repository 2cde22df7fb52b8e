import { join } from 'node:path';
import { readManifest } from '../engine/verify/verify-merge.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import { type BaseCard, readBaseCard } from '../report/base-card.ts';
import { type ReleaseFacts, releaseFacts } from '../report/release-facts.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import { readInsight } from './plan-insight.ts';
import { releaseProvenance } from './provenance.ts';
import type { ReleaseParts } from './quality-types.ts';
import { readStored } from './stored-json.ts';
import { evaluationDirectory, mergeWorkspace } from './workspace.ts';

/** What a release knows of itself once it is merged and judged, from the workspace. */
export async function factsOfRelease(home: string, input: ReleaseParts): Promise<ReleaseFacts> {
  const { recipe, inputs, sealed, verification, run, quality } = input;
  const manifest = await readManifest(sealed.directory);
  const { decision, approval } = quality ?? {};
  const decisions = join(evaluationDirectory(home), 'decisions');
  const gate =
    decision === undefined ? undefined : await readStored<GateDecision>(decisions, decision);
  return releaseFacts({
    name: recipe.name,
    version: recipe.version,
    provenance: releaseProvenance(input),
    artefact: inputs.artefact,
    manifest,
    manifestDigest: sealed.manifestDigest,
    verification,
    insight: await readInsight(mergeWorkspace(home, input.planDigest)),
    run,
    gate,
    approval,
    baseCard: await baseCardOf(input),
  });
}

async function baseCardOf({ roots }: ReleaseParts): Promise<BaseCard | undefined> {
  const directory = roots?.['base'];
  return directory === undefined ? undefined : readBaseCard(await openModelDirectory(directory));
}
