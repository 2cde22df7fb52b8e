import type { Client } from '@temporalio/client';
import { formatBytes } from '../cli/format.ts';

type Histories = ReturnType<Client['workflow']['getHandle']>;

/** What of a workflow the server keeps, over all runs that carried it on. */
export interface HistoryFacts {
  /** Of each run, the first one first. */
  readonly events: readonly number[];
  /** As they are sent and stored, of all runs. */
  readonly bytes: number;
  readonly largest: LargestPayload;
}

export interface LargestPayload {
  readonly bytes: number;
  /** The event that holds it. */
  readonly event: string;
}

/**
 * Reads the histories of a workflow.
 * @param runId the first run; the newest one if not given
 */
export async function historyFacts(
  client: Client,
  workflowId: string,
  runId?: string,
): Promise<HistoryFacts> {
  const events: number[] = [];
  let bytes = 0;
  let largest: LargestPayload = { bytes: 0, event: 'none' };
  let next: string | undefined = runId;
  do {
    const handle: Histories = client.workflow.getHandle(workflowId, next);
    const history = (await handle.fetchHistory()).events ?? [];
    events.push(history.length);
    bytes += Number((await handle.describe()).raw.workflowExecutionInfo?.historySizeBytes ?? 0);
    for (const event of history) {
      const size = largestPayload(event);
      if (size > largest.bytes) largest = { bytes: size, event: nameOf(event) };
    }
    const last = history.at(-1)?.workflowExecutionContinuedAsNewEventAttributes;
    next = last?.newExecutionRunId ?? undefined;
  } while (next !== undefined);
  return { events, bytes, largest };
}

export function describeHistory({ events, bytes, largest }: HistoryFacts): string {
  return (
    `${events.join(' + ')} events, ${formatBytes(bytes)}, largest payload ` +
    `${formatBytes(largest.bytes)} (${largest.event})`
  );
}

/** The attributes of an event are named after its kind. */
function nameOf(event: object): string {
  const attributes = Object.entries(event).find(
    ([key, value]) => key.endsWith('EventAttributes') && value != null,
  );
  const [name = 'event', value] = attributes ?? [];
  const { activityType } = (value ?? {}) as { readonly activityType?: { readonly name?: string } };
  const kind = name.replace('EventAttributes', '');
  return activityType?.name === undefined ? kind : `${kind} ${activityType.name}`;
}

function largestPayload(value: unknown): number {
  if (value instanceof Uint8Array) return value.length;
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.values(value).reduce<number>((max, each) => Math.max(max, largestPayload(each)), 0);
}
