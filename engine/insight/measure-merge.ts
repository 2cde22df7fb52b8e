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
  type TensorRetention,
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

/** What is kept of it for the report: of single tensors only what is measured of a bounded number. */
export interface InsightSummary {
  readonly retention: RetentionSummary | null;
  readonly conflicts: ConflictSummary | null;
  readonly warnings: readonly string[];
  /**
   * For each measured tensor, in the order of the plan: 256 at most, some 30 kB. Absent where an
   * earlier version measured.
   */
  readonly tensors?: readonly TensorRetention[];
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
    ...(retention && { tensors: retention.tensors.map(toKeptPrecision) }),
  };
}

/** Samples of rows give two digits; four leave room, and keep what is written short. */
function toKeptPrecision({ name, retention, relativeSize }: TensorRetention): TensorRetention {
  const rounded = (value: number): number => Number(value.toPrecision(4));
  // Not to 1, which is nothing lost at all: of the loss, four digits.
  return { name, retention: 1 - rounded(1 - retention), relativeSize: rounded(relativeSize) };
}
