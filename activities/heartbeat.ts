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
  /** Over the last seconds; absent until something has moved. */
  readonly bytesPerSecond?: number;
  /** 0 to 1, of work that is not counted in bytes. */
  readonly fraction?: number;
}

/** Long enough to even out windows and files, short enough to show that something stalls. */
const RATE_WINDOW_MS = 20_000;

/** How fast bytes come, over the last seconds. */
export class SlidingRate {
  #samples: { readonly atMs: number; readonly bytes: number }[] = [];

  /**
   * @param atMs of a clock that only goes forward
   * @param bytes so far; fewer than before begin another count
   * @returns bytes per second; undefined while nothing has moved yet
   */
  at(atMs: number, bytes: number): number | undefined {
    // What an earlier attempt has done comes at once, with the first report: it is not speed.
    if (bytes === 0 || bytes < (this.#samples.at(-1)?.bytes ?? 0)) this.#samples = [];
    if (bytes === 0) return undefined;
    this.#samples.push({ atMs, bytes });
    while ((this.#samples[1]?.atMs ?? atMs) < atMs - RATE_WINDOW_MS) this.#samples.shift();
    const [first] = this.#samples;
    if (first === undefined || first.atMs === atMs) return undefined;
    return Math.round((1000 * (bytes - first.bytes)) / (atMs - first.atMs));
  }
}

/**
 * Runs long work with heartbeats. Without them Temporal cannot tell a dead worker from a busy one,
 * and the activity would not hear of its cancellation.
 */
export async function withHeartbeat<T>(
  stage: string,
  work: (
    report: (progress: Omit<ActivityProgress, 'stage' | 'bytesPerSecond'>) => void,
    signal: AbortSignal,
  ) => Promise<T>,
): Promise<T> {
  const context = Context.current();
  let latest: ActivityProgress = { stage, item: '', bytesDone: 0, bytesTotal: 0 };
  const rate = new SlidingRate();
  const beat = setInterval(() => {
    const bytesPerSecond = rate.at(performance.now(), latest.bytesDone);
    context.heartbeat({ ...latest, ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }) });
  }, HEARTBEAT_INTERVAL_MS);
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
