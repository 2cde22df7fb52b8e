import { Context } from '@temporalio/activity';

/**
 * What activities count while they work. Labels are bounded sets, beside those of Temporal
 * (namespace, task queue, activity type): names of releases and files would make a time series each.
 */
const COUNTERS = {
  weldline_merged_bytes: 'Bytes of merged shards, as they were written; found ones not counted',
  weldline_fetched_bytes: 'Bytes of inputs that came over the network to the disk',
  weldline_published_bytes: 'Bytes of files that were sent to targets',
} as const;

export type ByteCounter = keyof typeof COUNTERS;

/** Bytes that each activity under way has moved. */
const moved = new WeakMap<Context, number>();

/** @returns how many bytes the present activity has moved so far */
export function bytesOf(): number {
  return moved.get(Context.current()) ?? 0;
}

export function countBytes(
  name: ByteCounter,
  bytes: number,
  labels: Readonly<Record<string, string>> = {},
): void {
  counterOf(name)(bytes, labels);
}

/**
 * Counts what is reported as a sum that grows.
 * @param from where it begins; absent: with the first report, as where earlier work is gone on with
 */
export function countGrowth(name: ByteCounter, from?: number): (bytesDone: number) => void {
  const count = counterOf(name);
  let counted = from;
  return (bytesDone) => {
    count(bytesDone - (counted ?? bytesDone), {});
    counted = Math.max(bytesDone, counted ?? bytesDone);
  };
}

/** Bound to the present activity: what reports bytes may be called by a thread's message. */
function counterOf(name: ByteCounter) {
  const context = Context.current();
  const counter = context.metricMeter.createCounter(name, undefined, COUNTERS[name]);
  return (bytes: number, labels: Readonly<Record<string, string>>): void => {
    if (bytes <= 0) return;
    moved.set(context, (moved.get(context) ?? 0) + bytes);
    counter.add(bytes, labels);
  };
}
