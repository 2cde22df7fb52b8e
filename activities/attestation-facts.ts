import { basename, isAbsolute } from 'node:path';
import type { AttestationFacts, AttestedModel, ModelPlace } from '../attest/facts.ts';
import { assert } from '../engine/errors.ts';
import type { Manifest } from '../engine/manifest.ts';
import {
  type ArtefactDescription,
  type ArtefactFile,
  artefactNameOf,
} from '../publishers/publisher.ts';
import { candidateMetrics } from '../report/candidate-metrics.ts';
import type { ArtefactRecord, ReleaseFacts } from '../report/release-facts.ts';
import type { ReportResult } from '../report/report-facts.ts';
import type { ResolvedModel } from '../sources/model-input.ts';
import type { ReleaseParts } from './quality-types.ts';
import { resolvedAdapters } from './resolved-adapters.ts';

export interface AttestedArtefact {
  readonly release: ReleaseParts;
  readonly facts: ReleaseFacts;
  readonly record: ArtefactRecord;
  readonly description: ArtefactDescription;
  /** What exists of it so far. */
  readonly files: readonly ArtefactFile[];
  readonly results: readonly ReportResult[];
  /** Of the hub that models came from. */
  readonly hubEndpoint: string;
}

/** What provenance and bill of materials say of an artefact. */
export function attestationFacts(artefact: AttestedArtefact): AttestationFacts {
  const { release, facts, record, description, files, results, hubEndpoint } = artefact;
  const { recipe, inputs, run } = release;
  const [base, ...adapters] = facts.inputs;
  assert(base !== undefined, 'a release without a base');
  const resolved = resolvedAdapters(release, inputs);
  const { conversion, part, manifestDigest } = record;
  const { gate } = description;
  const { license, architecture, pipelineTag: task } = facts.baseCard ?? {};
  return {
    artefact: {
      name: artefactNameOf(record),
      version: facts.version,
      ...(part === undefined ? {} : { part }),
      manifestDigest,
    },
    files: files.map(({ path, size, sha256 }) => ({ path, size, sha256 })),
    base: attestedModel(base, inputs.base, hubEndpoint),
    adapters: adapters.map((adapter) => {
      const model = resolved.find(({ id }) => id === adapter.id)?.resolved;
      assert(model !== undefined, `adapter "${adapter.id}" is not resolved`);
      return attestedModel(adapter, model, hubEndpoint);
    }),
    recipe: { name: recipe.name, digest: facts.recipe.digest, document: publicRecipe(recipe) },
    engine: facts.engine,
    plan: facts.plan,
    options: facts.options,
    ...(conversion && {
      conversion: {
        id: conversion.id,
        settings: conversion.settings,
        madeOf: { artefact: record.release, manifestDigest: facts.manifestDigest },
      },
    }),
    tools: conversion?.tools ?? {},
    metrics: candidateMetrics(part ?? 'merged', facts.gate, results),
    ...(gate && { gate }),
    ...(license && { license }),
    ...(architecture && { architecture }),
    ...(task !== undefined && { task }),
    run: {
      workflowId: run.workflowId,
      runId: run.runId,
      startedAt: run.startedAt,
      finishedAt: finishedAt(record, run.startedAt),
    },
  };
}

function attestedModel(
  { id, model, files, trainingRun }: Manifest['inputs'][number],
  resolved: ResolvedModel,
  hubEndpoint: string,
): AttestedModel {
  const place = placeOf(resolved, hubEndpoint);
  return { id, model, place, files, ...(trainingRun === undefined ? {} : { trainingRun }) };
}

function placeOf(model: ResolvedModel, hubEndpoint: string): ModelPlace {
  if (model.kind === 'directory') return { kind: 'directory' };
  if (model.kind === 'remote') {
    const { kind, uri, pin } = model.model;
    return { kind, uri, pin };
  }
  const { repo, commit, folder } = model;
  return { kind: 'hub', repo, commit, folder, endpoint: hubEndpoint };
}

/** Servers of one's own: where they are is nobody's business, and decides nothing of an artefact. */
const ADDRESSES = ['endpoint', 'trackingUri'];

/**
 * The recipe without addresses of servers, and of paths of this machine, which mean nothing elsewhere,
 * the last components.
 */
export function publicRecipe(value: unknown): unknown {
  if (typeof value === 'string') return isAbsolute(value) ? basename(value) : value;
  if (Array.isArray(value)) return value.map(publicRecipe);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !ADDRESSES.includes(key))
      .map(([key, member]) => [key, publicRecipe(member)]),
  );
}

/** When the last stage ended whose work is in the artefact. */
function finishedAt({ stages }: ArtefactRecord, startedAt: string): string {
  return (
    stages
      .flatMap((stage) => stage.finishedAt ?? [])
      .sort()
      .at(-1) ?? startedAt
  );
}
