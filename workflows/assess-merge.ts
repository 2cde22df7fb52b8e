import { CancellationScope, condition, isCancellation } from '@temporalio/workflow';
import type {
  Converted,
  Evaluated,
  Judged,
  MergedContext,
  QualityPlan,
} from '../activities/quality-types.ts';
import type { Place } from '../activities/types.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import type { CandidateStep } from '../evaluation/candidate.ts';
import { allSteps } from './all-steps.ts';
import type { ReleaseInput } from './messages.ts';
import { gateDecided } from './metrics.ts';
import { longWork, shortWork } from './options.ts';
import { activitiesAt } from './placement.ts';
import { codeOf, type StageRunner } from './stage-runner.ts';

/** Failures of what a step was made from, or compared with, which was whole when it was finished. */
const OF_NEEDS = [
  'convert.source-damaged',
  'evaluate.distributions-damaged',
  'evaluate.reference-missing',
];

export interface Assessment {
  readonly converted: readonly Converted[];
  readonly evaluated: readonly Evaluated[];
  readonly judged?: Judged | undefined;
}

/**
 * Makes all conversions of a merged checkpoint and evaluates all candidates, side by side: an
 * evaluation begins as soon as what it evaluates, and what it is compared with, is there. Then the
 * gate judges.
 */
export async function assessMerge(
  { heartbeatTimeoutMs }: ReleaseInput,
  place: Place,
  context: MergedContext,
  plan: QualityPlan,
  runner: StageRunner,
): Promise<Assessment> {
  const long = longWork(heartbeatTimeoutMs);
  const gguf = activitiesAt(place, 'convert', long);
  const gpu = activitiesAt(place, 'gpu', long);
  const { judge } = activitiesAt(place, 'control', shortWork(heartbeatTimeoutMs));

  const converted = new Map<string, Converted>();
  const evaluated = new Map<string, Evaluated>();
  // llm-compressor calibrates on a GPU where there is one; llama.cpp quantizes on processors.
  const converterOf = ({ kind }: ConversionStep) => (kind === 'gguf' ? gguf : gpu);
  const makeOne = (step: ConversionStep, [source]: readonly (Converted | undefined)[]) =>
    converterOf(step).convert.executeWithOptions({ summary: step.id }, [
      { ...context, step, ...(source && { source }) },
    ]);
  const convertAll = () => allSteps(plan.conversions, converted, sourceOf, makeOne, isOfNeeds);
  const askOne = async (candidate: CandidateStep, needed: readonly (Evaluated | undefined)[]) => {
    const { conversion } = candidate;
    const made = conversion === undefined ? undefined : await arrival(converted, conversion);
    const references = needed.flatMap((reference) => reference ?? []);
    const asked = { ...context, candidate, references, suites: plan.suites };
    return gpu.evaluate.executeWithOptions({ summary: candidate.id }, [
      { ...asked, ...(made && { converted: made }) },
    ]);
  };
  const evaluateAll = () => allSteps(plan.candidates, evaluated, referencesOf, askOne, isOfNeeds);
  await allOrNone([
    ...(plan.conversions.length === 0 ? [] : [() => runner.run('convert', convertAll)]),
    ...(plan.candidates.length === 0 ? [] : [() => runner.run('evaluate', evaluateAll)]),
  ]);
  const results = {
    converted: inOrder(plan.conversions, converted),
    evaluated: inOrder(plan.candidates, evaluated),
  };
  if (plan.candidates.length === 0) return results;
  const judged = await runner.run('gate', () =>
    judge({ ...context, plan, evaluated: results.evaluated }),
  );
  gateDecided(judged.passed.length, judged.failed.length);
  return { ...results, judged };
}

/** Waits until something is there. What it takes may have failed and be waiting for a person. */
async function arrival<T>(things: ReadonlyMap<string, T>, id: string): Promise<T> {
  let found: T | undefined;
  await condition(() => {
    found = things.get(id);
    return found !== undefined;
  });
  if (found === undefined) throw new Error(`${id} is not there`);
  return found;
}

function isOfNeeds(error: unknown): boolean {
  return OF_NEEDS.includes(codeOf(error) ?? '');
}

function sourceOf(step: ConversionStep): readonly string[] {
  return step.kind === 'gguf' && step.after !== undefined ? [step.after] : [];
}

function referencesOf({ comparedWith, comparedWithBySuite }: CandidateStep): readonly string[] {
  const references = Object.values(comparedWithBySuite ?? {});
  return comparedWith === undefined ? references : [comparedWith, ...references];
}

function inOrder<T>(
  steps: readonly { readonly id: string }[],
  things: ReadonlyMap<string, T>,
): readonly T[] {
  return steps.flatMap(({ id }) => things.get(id) ?? []);
}

/** Runs things side by side; when one fails for good, the others are cancelled. */
async function allOrNone(things: readonly (() => Promise<void>)[]): Promise<void> {
  await CancellationScope.cancellable(async () => {
    const scope = CancellationScope.current();
    const works = things.map((start) =>
      start().catch((error: unknown) => {
        scope.cancel();
        throw error;
      }),
    );
    const results = await Promise.allSettled(works);
    const failures = results.flatMap((result) =>
      result.status === 'rejected' ? [result.reason as unknown] : [],
    );
    const failure = failures.find((error) => !isCancellation(error)) ?? failures[0];
    if (failure !== undefined) throw failure;
  });
}
