import { assert } from '../engine/errors.ts';
import { STATEMENT_TYPE } from './envelope.ts';
import type { AttestationFacts, AttestedModel } from './facts.ts';
import { modelUri, toolUrl } from './package-url.ts';
import { parseProvenance } from './parse-provenance.ts';
import {
  BUILD_TYPE,
  BUILDER_ID,
  MERGED_NAME,
  modelName,
  PROVENANCE_TYPE,
  TOOL_PREFIX,
} from './provenance-terms.ts';
import { inSigningOrder, rootDigest } from './signed-files.ts';

/**
 * How an artefact was made: an in-toto statement with SLSA v1 provenance. docs/provenance.md says
 * what each field means.
 * @returns the text of `provenance.intoto.json`
 */
export function provenanceStatement(facts: AttestationFacts): string {
  const { artefact, recipe, engine, plan, options, conversion, run } = facts;
  const statement = {
    _type: STATEMENT_TYPE,
    subject: inSigningOrder(facts.files).map(({ path, sha256 }) => ({
      name: path,
      digest: { sha256 },
    })),
    predicateType: PROVENANCE_TYPE,
    predicate: {
      buildDefinition: {
        buildType: BUILD_TYPE,
        externalParameters: { recipe: recipe.document },
        internalParameters: {
          artefact: artefact.name,
          version: artefact.version,
          recipe: { name: recipe.name, sha256: recipe.digest },
          plan,
          options,
          engineFormat: engine.format,
          ...(conversion && {
            conversion: { id: conversion.id, settings: conversion.settings },
          }),
        },
        resolvedDependencies: [
          ...describeModel(facts.base, 'base'),
          ...facts.adapters.flatMap((adapter) => describeModel(adapter, 'adapter')),
          ...(conversion ? [describeMerged(conversion.madeOf)] : []),
          ...Object.entries(facts.tools).map(([name, version]) => ({
            name: `${TOOL_PREFIX}${name}`,
            uri: toolUrl(name, version),
            annotations: { role: 'tool', version },
          })),
        ],
      },
      runDetails: {
        builder: { id: BUILDER_ID, version: { weldline: engine.version } },
        metadata: {
          invocationId: `${run.workflowId}/${run.runId}`,
          startedOn: toRfc3339(run.startedAt),
          finishedOn: toRfc3339(run.finishedAt),
        },
      },
    },
  };
  const text = `${JSON.stringify(statement, null, 2)}\n`;
  requireReadable(text);
  return text;
}

/** Whoever verifies it applies these rules, and a year later nobody could mend what breaks them. */
function requireReadable(text: string): void {
  try {
    parseProvenance(text);
  } catch (error) {
    assert(false, (error as Error).message);
  }
}

function describeModel(model: AttestedModel, role: 'base' | 'adapter'): object[] {
  const { id, place, trainingRun } = model;
  const name = modelName(role, id);
  const files = inSigningOrder(model.files);
  const uri = modelUri(place);
  const isPinned = place.kind === 's3' || place.kind === 'http';
  return [
    {
      name,
      ...(uri !== undefined && { uri }),
      digest: digestOfModel(model),
      annotations: {
        ...{ role, model: model.model },
        ...(isPinned && { pin: place.pin }),
        ...(trainingRun !== undefined && { trainingRun }),
      },
    },
    ...files.map(({ path, sha256, size }) => {
      const fileUri = modelUri(place, path);
      return {
        name: `${name}/${path}`,
        ...(fileUri !== undefined && { uri: fileUri }),
        digest: { sha256 },
        annotations: { role: 'file', size },
      };
    }),
  ];
}

/** What pins it where it is; without that, the digest over those of its files that were read. */
function digestOfModel({ place, files }: AttestedModel): Readonly<Record<string, string>> {
  if (place.kind === 'hub') return { gitCommit: place.commit };
  if (place.kind === 'oci') return { sha256: place.pin };
  return { sha256: rootDigest(inSigningOrder(files)) };
}

function describeMerged({
  artefact,
  manifestDigest,
}: {
  artefact: string;
  manifestDigest: string;
}) {
  return {
    name: MERGED_NAME,
    digest: { sha256: manifestDigest },
    annotations: { role: 'checkpoint', artefact },
  };
}

/** Seconds are enough, and every validator takes them. */
function toRfc3339(time: string): string {
  const date = new Date(time);
  assert(!Number.isNaN(date.getTime()), `${time} is no time`);
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}
