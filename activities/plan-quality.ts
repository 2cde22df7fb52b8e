import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { directoryTargets } from '../config/publish-schema.ts';
import type { Recipe } from '../config/recipe.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import type { ConversionTools, ModelFacts } from '../conversion/convert-options.ts';
import { planConversions } from '../conversion/plan-conversions.ts';
import { preflightConversions } from '../conversion/preflight-conversions.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import { checkDiskSpace } from '../engine/plan/disk-space.ts';
import type { PlanPreview } from '../engine/plan/plan.ts';
import { loadSuites } from '../evaluation/load-suites.ts';
import { planCandidates } from '../evaluation/plan-candidates.ts';
import { requireDistributions } from '../evaluation/require-distributions.ts';
import { requirePeftAdapters, requireRunnableBase } from '../evaluation/require-runnable.ts';
import type { Suite } from '../evaluation/suite.ts';
import { writeModelFacts } from './model-facts.ts';
import type { QualityPlan } from './quality-types.ts';
import { type Needs, needsOfCandidate, needsOfConversion } from './release-tools.ts';

/** More than any type takes for a weight, blocks' scales included; F32 apart. */
const BYTES_PER_WEIGHT = { F32: 4, lossless: 2, quantized: 1.1 };

/** What a recipe wants made of a merge, and what that is judged by: no file is looked at. */
export function qualityOf({
  adapters,
  conversions = [],
  evaluation,
}: Pick<Recipe, 'adapters' | 'conversions' | 'evaluation'>): Omit<QualityPlan, 'warnings'> {
  const adapterIds = adapters.map(({ id }) => id);
  const steps = planConversions({ conversions, adapterIds });
  const candidates =
    evaluation === undefined ? [] : planCandidates({ evaluation, steps, adapterIds });
  return { conversions: steps, candidates };
}

/** The plan, and the suites that it asks. */
export interface PlannedQuality extends Omit<QualityPlan, 'suites'> {
  readonly suites: readonly Suite[];
}

export interface QualityPreflight {
  readonly recipe: Recipe;
  readonly preview: PlanPreview;
  /** The base and the adapters, by their input ids. */
  readonly models: Readonly<Record<string, ModelFiles>>;
  readonly tools: ConversionTools;
  /** Directories of the adapters, by id. */
  readonly adapters: Readonly<Record<string, string>>;
  readonly home: string;
  readonly signal?: AbortSignal | undefined;
  /** Share of the deltas that 16 bits keep, where it was measured. */
  readonly retention?: number | undefined;
}

/**
 * Plans conversions and evaluations, and finds what of them can fail before the merge.
 * @throws WeldlineError `convert.*`, `evaluate.*`, `disk.full`, `source.not-found` for a suite
 */
export async function preflightQuality(given: QualityPreflight): Promise<PlannedQuality> {
  const { recipe, preview, models, home, ...asked } = given;
  const { conversions, candidates } = qualityOf(recipe);
  const temporary = join(home, 'cache', `facts-${randomBytes(6).toString('hex')}`);
  try {
    const { suites: wanted = [] } = recipe.evaluation ?? {};
    await requirePeftAdapters(candidates, models);
    const { base } = models;
    if (base !== undefined) await requireRunnableBase(candidates, base, asked.tools.python);
    requireDistributions(candidates, wanted, asked.tools.llamaCpp);
    const model = await writeModelFacts(preview, models, temporary);
    const published = conversions.filter((step) => step.kind !== 'gguf' || step.wanted);
    const bytes = conversionBytes(published, model);
    const purpose = 'what is published of the conversions';
    await checkDiskSpace([
      {
        directory: home,
        bytes: conversionBytes(conversions, model),
        purpose: 'the conversions',
      },
      ...directoryTargets(recipe).map((directory) => ({ directory, bytes, purpose })),
    ]);
    const warnings = await preflightConversions({ ...asked, steps: conversions, model });
    const suites = await loadSuites(wanted, temporary);
    const ofSuites = suites.flatMap((suite) => suite.warnings ?? []);
    return { conversions, candidates, warnings: [...warnings, ...ofSuites], suites };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** The programs that a recipe needs. */
export function needsOf({ conversions, candidates }: Omit<QualityPlan, 'warnings'>): Needs[] {
  return [...conversions.map(needsOfConversion), ...candidates.map(needsOfCandidate)];
}

/** An upper bound of what conversions write. */
function conversionBytes(steps: readonly ConversionStep[], { tensors }: ModelFacts): number {
  const weights = [...tensors.values()].reduce(
    (sum, shape) => sum + shape.reduce((product, extent) => product * extent, 1),
    0,
  );
  return steps
    .map((step) => {
      if (step.kind === 'gguf-adapter') return 0;
      if (step.kind !== 'gguf') return weights * BYTES_PER_WEIGHT.quantized;
      if (step.type === 'F32') return weights * BYTES_PER_WEIGHT.F32;
      const isQuantized = step.after !== undefined;
      return weights * (isQuantized ? BYTES_PER_WEIGHT.quantized : BYTES_PER_WEIGHT.lossless);
    })
    .reduce((sum, bytes) => sum + bytes, 0);
}
