import { needsOf, preflightQuality, qualityOf } from '../activities/plan-quality.ts';
import type { QualityPlan } from '../activities/quality-types.ts';
import { findTools } from '../activities/release-tools.ts';
import { childVariables, readEnvironment } from '../config/environment.ts';
import type { Recipe } from '../config/recipe.ts';
import type { ConversionTools } from '../conversion/convert-options.ts';
import { WeldlineError } from '../engine/errors.ts';
import { type MergeInsight, summaryOf } from '../engine/insight/measure-merge.ts';
import { formatTable } from './format.ts';
import type { PreparedMerge } from './merge-inputs.ts';
import type { Output } from './output.ts';

/** What a recipe wants made of the merge and judged; undefined where it wants nothing. */
export async function previewQuality(
  recipe: Recipe,
  { preview, models, roots }: PreparedMerge,
  insight: MergeInsight,
  signal: AbortSignal,
): Promise<QualityPlan | undefined> {
  if (recipe.conversions === undefined && recipe.evaluation === undefined) return undefined;
  const environment = readEnvironment();
  const lacking: string[] = [];
  let tools: ConversionTools = { variables: childVariables() };
  try {
    tools = await findTools({ tools: environment }, needsOf(qualityOf(recipe)), signal);
  } catch (error) {
    // A plan is made on any machine; the release is stopped by what is missing.
    if (!(error instanceof WeldlineError) || !error.code.startsWith('tool.')) throw error;
    lacking.push(error.message);
  }
  const { retention } = summaryOf(insight);
  const { home } = environment;
  const { suites: _, ...plan } = await preflightQuality({
    ...{ recipe, preview, models, tools, home, signal },
    adapters: roots,
    retention: retention?.overall ?? undefined,
  });
  return { ...plan, warnings: [...lacking, ...plan.warnings] };
}

/** The conversions and what each is judged by. */
export function printQuality({ conversions, candidates }: QualityPlan, output: Output): void {
  const made = conversions.map((step) => {
    const source = (step.kind === 'gguf' ? step.after : undefined) ?? 'the merged checkpoint';
    const from = step.kind === 'gguf-adapter' ? `adapter ${step.adapter}` : source;
    const isPublished = step.kind !== 'gguf' || step.wanted;
    return [step.id, `from ${from}`, isPublished ? '' : 'not published'];
  });
  if (made.length > 0) {
    output.line();
    output.line('conversions');
    output.line(formatTable(made.map((row) => ['', ...row])));
  }
  if (candidates.length === 0) return;
  const asked = candidates.map(({ id, runner, suites, comparedWith }) => [
    ...['', id, `by ${runner}`, `suites ${suites.join(', ')}`],
    comparedWith === undefined ? '' : `beside ${comparedWith}`,
  ]);
  output.line();
  output.line('evaluated');
  output.line(formatTable(asked));
}
