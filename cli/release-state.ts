import type { WorkflowExecutionInfo } from '@temporalio/client';
import { LISTED, type Listed } from '../workflows/messages.ts';

/** What the server knows of a release without asking it. */
export interface ReleaseState {
  /** `running`, `waiting`, `paused`, `completed`, `failed`, `cancelled`, `terminated`, `timed_out`. */
  readonly name: string;
  /** Where it is, while it has not ended. */
  readonly stages: readonly string[];
  /** Why it waits. */
  readonly code?: string;
}

export function stateOf({
  status,
  memo,
}: Pick<WorkflowExecutionInfo, 'status' | 'memo'>): ReleaseState {
  const listed = memo?.[LISTED] as Listed | undefined;
  if (status.name !== 'RUNNING') return { name: status.name.toLowerCase(), stages: [] };
  // Of an earlier version: it does not say.
  if (listed === undefined) return { name: 'running', stages: [] };
  const { state, stages, code } = listed;
  return { name: state, stages, ...(code === undefined ? {} : { code }) };
}
