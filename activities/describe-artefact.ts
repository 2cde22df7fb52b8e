import type { Manifest } from '../engine/manifest.ts';
import type { ArtefactDecision, SuiteDecision } from '../evaluation/gate-decision.ts';
import { type ArtefactDescription, artefactNameOf } from '../publishers/publisher.ts';
import type { ReleaseFacts } from '../report/release-facts.ts';
import type { ArtefactContents } from './artefact-contents.ts';

/** What registries are told of an artefact beside its files. */
export function describeArtefact(
  facts: ReleaseFacts,
  contents: ArtefactContents,
): ArtefactDescription {
  const { conversion, part = 'merged' } = contents;
  const [base, ...adapters] = facts.inputs;
  const license = facts.baseCard?.license;
  const decision = facts.gate?.artefacts.find(({ candidate }) => candidate === part);
  // An adapter in another format goes where the merge goes.
  const judged = conversion?.kind === 'gguf-adapter' ? 'merged' : part;
  const judgement = facts.gate?.artefacts.find(({ candidate }) => candidate === judged);
  const gate = gateOf(judgement, facts.approval?.override !== undefined);
  return {
    name: facts.name,
    version: facts.version,
    kind: conversion?.kind ?? 'merged',
    base: base === undefined ? '' : pinnedName(base),
    adapters: adapters.map((adapter) => ({ id: adapter.id, model: pinnedName(adapter) })),
    run: { workflowId: facts.run.workflowId, runId: facts.run.runId },
    createdAt: facts.run.startedAt,
    metrics: Object.fromEntries((decision?.suites ?? []).flatMap(metricsOf)),
    ...(gate && { gate }),
    ...(license && { license: license.name ?? license.id }),
    labels: {
      artefact: artefactNameOf(contents),
      engine: `weldline ${facts.engine.version}, format ${facts.engine.format}`,
      ...(conversion?.bitsPerWeight && { bitsPerWeight: conversion.bitsPerWeight.toFixed(2) }),
    },
  };
}

/** `hf://org/name@commit`, or what it is called elsewhere. */
function pinnedName({ model, commit }: Manifest['inputs'][number]): string {
  return commit === undefined ? model : `${model}@${commit}`;
}

function gateOf(
  decision: ArtefactDecision | undefined,
  isOverridden: boolean,
): ArtefactDescription['gate'] {
  if (decision === undefined) return undefined;
  if (decision.passed) return 'passed';
  return isOverridden ? 'overridden' : 'refused';
}

function metricsOf({ suite, score, referenceScore, drop, kl }: SuiteDecision): [string, number][] {
  const measured = {
    score: score?.value,
    reference_score: referenceScore?.value,
    drop: drop?.value,
    kl,
  };
  return Object.entries(measured).flatMap(([name, value]) =>
    value === undefined ? [] : [[`${suite}/${name}`, value] as [string, number]],
  );
}
