import { Context } from '@temporalio/activity';

/** Often enough for a live progress bar; the SDK sends at most as often as it is set to. */
const HEARTBEAT_INTERVAL_MS = 500;

/** What a long activity tells about itself. A hint for display: the journal on disk is the truth. */
export interface ActivityProgress {
  readonly stage: string;
  /** What is being worked on: a tensor, a file. */
  readonly item: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** 0 to 1, of work that is not counted in bytes. */
  readonly fraction?: number;
}

/**
 * Runs long work with heartbeats. Without them Temporal cannot tell a dead worker from a busy one,
 * and the activity would not hear of its cancellation.
 */
export async function withHeartbeat<T>(
  stage: string,
  work: (
    report: (progress: Omit<ActivityProgress, 'stage'>) => void,
    signal: AbortSignal,
  ) => Promise<T>,
): Promise<T> {
  const context = Context.current();
  let latest: ActivityProgress = { stage, item: '', bytesDone: 0, bytesTotal: 0 };
  const beat = setInterval(() => context.heartbeat(latest), HEARTBEAT_INTERVAL_MS);
  try {
    context.heartbeat(latest);
    return await work((progress) => {
      latest = { stage, ...progress };
    }, context.cancellationSignal);
  } catch (error) {
    // An aborted read or wait surfaces as its own error; Temporal wants to see the cancellation.
    if (context.cancellationSignal.aborted) await context.cancelled;
    throw error;
  } finally {
    clearInterval(beat);
  }
}
