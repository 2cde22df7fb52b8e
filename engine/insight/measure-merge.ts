import type { KernelModule } from '../../kernels/index.ts';
import type { PlanPreview } from '../plan/plan.ts';
import {
  type ConflictReport,
  type ConflictSummary,
  measureConflicts,
  summarizeConflicts,
} from './conflicts.ts';
import { conflictWarnings, retentionWarnings, sizeWarnings } from './describe-insight.ts';
import {
  measureRetention,
  type RetentionReport,
  type RetentionSummary,
  summarizeRetention,
} from './retention.ts';
import { type InputModels, TensorReader } from './tensor-reader.ts';

/** What measuring tells of a merge before it is made. */
export interface MergeInsight {
  /** Null where the base was not to be read. */
  readonly retention: RetentionReport | null;
  /** Null for one adapter. */
  readonly conflicts: ConflictReport | null;
  readonly warnings: readonly string[];
}

/** The same without figures of single tensors, but for the worst. */
export interface InsightSummary {
  readonly retention: RetentionSummary | null;
  readonly conflicts: ConflictSummary | null;
  readonly warnings: readonly string[];
}

/** How a base is read: over a network each row is a request. */
export type BaseReading = 'none' | 'remote' | 'local';

/**
 * Measures a merge: how much of what is added survives rounding, and whether adapters contradict
 * each other. Reads the adapters, and a few rows of the base; a second or two for most merges.
 *
 * @param models all inputs, by id; the base is not opened where it is not to be read
 * @throws WeldlineError `disk.read-failed` or a `hub.*` code
 */
export async function measureMerge(
  plan: PlanPreview,
  models: InputModels,
  kernel: KernelModule,
  { base, signal }: { readonly base: BaseReading; readonly signal?: AbortSignal | undefined },
): Promise<MergeInsight> {
  const reader = new TensorReader(models, signal);
  try {
    const retention = base === 'none' ? null : await measureRetention(plan, reader.read, base);
    const conflicts = (await measureConflicts(plan, reader.read, kernel)) ?? null;
    const warnings = [
      ...(retention === null ? [] : retentionWarnings(retention)),
      ...(conflicts === null ? [] : conflictWarnings(conflicts)),
      ...(conflicts === null || retention === null ? [] : sizeWarnings(retention)),
    ];
    return { retention, conflicts, warnings };
  } finally {
    await reader.close();
  }
}

export function summaryOf({ retention, conflicts, warnings }: MergeInsight): InsightSummary {
  return {
    retention: retention && summarizeRetention(retention),
    conflicts: conflicts && summarizeConflicts(conflicts),
    warnings,
  };
}
