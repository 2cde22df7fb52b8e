import { readFile } from 'node:fs/promises';
import { toReadError } from '../engine/disk-errors.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { systemErrorCode } from '../engine/errors.ts';
import { type InsightSummary, measureMerge, summaryOf } from '../engine/insight/measure-merge.ts';
import type { InputModels } from '../engine/insight/tensor-reader.ts';
import type { Plan } from '../engine/plan/plan.ts';
import type { KernelModule } from '../kernels/index.ts';
import type { MergeWorkspace } from './workspace.ts';

/**
 * Measures a planned merge and leaves the figures beside its plan, for the report: a history has no
 * room for them.
 */
export async function measurePlan(
  plan: Plan,
  models: InputModels,
  kernel: KernelModule,
  { insight }: MergeWorkspace,
  { base, signal }: { readonly base: 'local' | 'remote'; readonly signal?: AbortSignal },
): Promise<InsightSummary> {
  const summary = summaryOf(await measureMerge(plan, models, kernel, { base, signal }));
  await writeFileDurably(insight, `${JSON.stringify(summary)}\n`);
  return summary;
}

/** The figures of a merge; none if a version of weldline planned it that did not measure. */
export async function readInsight({
  insight,
}: MergeWorkspace): Promise<InsightSummary | undefined> {
  let text: string;
  try {
    text = await readFile(insight, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw toReadError(error, insight);
  }
  return JSON.parse(text) as InsightSummary;
}
