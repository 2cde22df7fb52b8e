import { join } from 'node:path';
import type { ConversionManifest, ConversionStep } from '../conversion/conversion-step.ts';
import { readConversionManifest } from '../conversion/conversion-store.ts';
import { assert } from '../engine/errors.ts';
import type { SuiteResult } from '../evaluation/results.ts';
import type { Suite } from '../evaluation/suite.ts';
import type { ReleaseFacts } from '../report/release-facts.ts';
import { type ReportFacts, type ReportFactsInput, reportFacts } from '../report/report-facts.ts';
import { readInsight } from './plan-insight.ts';
import type { ReleaseParts, ReportInput } from './quality-types.ts';
import { readStored } from './stored-json.ts';
import { evaluationDirectory, mergeWorkspace, suiteDirectory } from './workspace.ts';

/** What the report shows, from what the release has made so far. */
export async function releaseReport(
  home: string,
  input: Omit<ReportInput, 'publications'> & Partial<ReportInput>,
  facts: ReleaseFacts,
): Promise<ReportFacts> {
  const { recipe, quality, planDigest, publications = [], stages = [] } = input;
  const begun = stages.flatMap(({ startedAtMs, ...stage }) =>
    startedAtMs === undefined ? [] : [{ ...stage, startedAtMs }],
  );
  return reportFacts({
    release: facts,
    tensors: (await readInsight(mergeWorkspace(home, planDigest)))?.tensors,
    conversions: await finishedConversions(input),
    evaluation: await evaluationOf(home, input, facts),
    approvalRequired: recipe.approval === 'required',
    approval: quality?.approval,
    publications: publications.map(({ part, ...publication }) => ({
      ...publication,
      ...(part === undefined ? {} : { candidate: part }),
    })),
    stages: begun,
  });
}

async function finishedConversions({
  quality,
}: ReleaseParts): Promise<NonNullable<ReportFactsInput['conversions']>> {
  const finished: { step: ConversionStep; manifest: ConversionManifest }[] = [];
  for (const step of quality?.plan.conversions ?? []) {
    const converted = quality?.converted.find(({ id }) => id === step.id);
    const conversion = converted && (await readConversionManifest(converted.directory));
    if (conversion !== undefined) finished.push({ step, manifest: conversion.manifest });
  }
  return finished;
}

async function evaluationOf(
  home: string,
  { recipe, quality }: ReleaseParts,
  { gate }: ReleaseFacts,
): Promise<ReportFactsInput['evaluation']> {
  const { evaluation } = recipe;
  if (evaluation === undefined || quality === undefined || gate === undefined) return undefined;
  const directory = join(evaluationDirectory(home), 'results');
  const results: SuiteResult[] = [];
  for (const each of quality.evaluated) {
    results.push(...(await readStored<readonly SuiteResult[]>(directory, each.results)));
  }
  const { suites, onFailure } = evaluation;
  assert(quality.plan.suites !== undefined, 'suites that were not kept');
  return {
    ...{ onFailure, suites, candidates: quality.plan.candidates, results, gate },
    loaded: await readStored<readonly Suite[]>(suiteDirectory(home), quality.plan.suites),
  };
}
