import { join } from 'node:path';
import type { ConversionManifest, ConversionStep } from '../conversion/conversion-step.ts';
import { readConversionManifest } from '../conversion/conversion-store.ts';
import { loadSuites } from '../evaluation/load-suites.ts';
import type { SuiteResult } from '../evaluation/results.ts';
import { reportPage } from '../report/html/report-page.ts';
import type { ReleaseFacts } from '../report/release-facts.ts';
import { type ReportFactsInput, reportFacts } from '../report/report-facts.ts';
import { readInsight } from './plan-insight.ts';
import type { ReportInput } from './quality-types.ts';
import { readStored } from './stored-json.ts';
import { evaluationDirectory, mergeWorkspace } from './workspace.ts';

/** The page for a person who decides, from what the release has made so far. */
export async function releasePage(
  home: string,
  input: ReportInput,
  facts: ReleaseFacts,
): Promise<string> {
  const { recipe, quality, planDigest, publications, stages = [] } = input;
  const begun = stages.flatMap(({ startedAtMs, ...stage }) =>
    startedAtMs === undefined ? [] : [{ ...stage, startedAtMs }],
  );
  return reportPage(
    reportFacts({
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
    }),
  );
}

async function finishedConversions({
  quality,
}: ReportInput): Promise<NonNullable<ReportFactsInput['conversions']>> {
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
  { recipe, quality, sealed }: ReportInput,
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
  return {
    ...{ onFailure, suites, candidates: quality.plan.candidates, results, gate },
    loaded: await loadSuites(suites, sealed.directory),
  };
}
