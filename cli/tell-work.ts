import { formatBytes, formatDuration } from './format.ts';
import type { PendingWork } from './pending-work.ts';
import type { LiveProgress } from './release-handle.ts';

/** Lines about one piece of work that is not done: how far it is, or why nobody does it. */
export function workLines(work: PendingWork, nowMs: number, embedded: boolean): readonly string[] {
  const { activity, subject, progress, lastError, queue = '' } = work;
  const name = subject === undefined ? activity : `${activity} (${subject})`;
  const attempts = work.attemptsMax === 0 ? '' : ` of ${work.attemptsMax}`;
  const attempt = work.attempt === 1 ? '' : `attempt ${work.attempt}${attempts}`;
  const first = [name, attempt, ...whatItDoes(work, nowMs)].filter((part) => part !== '');
  const where = work.worker === undefined || work.state === 'queued' ? '' : `on ${work.worker}`;
  const error =
    lastError === undefined ? [] : [`last error [${lastError.code}]: ${lastError.message}`];
  const isBytes = progress !== undefined && work.state !== 'queued';
  return [
    `  ${[...first, ...(isBytes ? [progressText(progress)] : []), where].filter(Boolean).join('  ')}`,
    ...error.map((line) => `    ${line.replaceAll('\n', '\n    ')}`),
    ...(work.queueIsServed === false ? [`    ${unserved(queue, embedded)}`] : []),
  ];
}

function whatItDoes({ state, nextAttemptAt, queue = '' }: PendingWork, nowMs: number): string[] {
  if (state === 'retrying' && nextAttemptAt !== undefined) {
    const inMs = Math.max(0, Date.parse(nextAttemptAt) - nowMs);
    return [`tried again in ${formatDuration(inMs)} (${nextAttemptAt.slice(11, 19)} UTC)`];
  }
  if (state === 'queued') return [`waits for a worker on ${queue}`];
  return state === 'stopping' ? ['stopping'] : [];
}

/** Roles have queues of their own: `weldline-gpu`, or `weldline-gpu@host` on a host of its own. */
function unserved(queue: string, embedded: boolean): string {
  if (embedded) return 'no weldline process works on it: weldline resume goes on';
  const [, role = 'control', host] = /^weldline(?:-(\w+))?(?:@(.*))?$/.exec(queue) ?? [];
  const where = host === undefined ? '' : ` on ${host}`;
  return (
    `no worker serves the queue ${queue}, or all are busy: start one with ` +
    `weldline worker --role ${role}${where}`
  );
}

/** Bytes, rate and time left, or a share of work that has no bytes; then what is worked on. */
export function progressText(progress: Omit<LiveProgress, 'stage'>): string {
  const { bytesDone, bytesTotal, bytesPerSecond: rate, fraction, item } = progress;
  const parts: string[] = [];
  if (fraction !== undefined) parts.push(`${Math.floor(100 * fraction)}%`);
  else if (bytesTotal > 0) {
    parts.push(`${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`);
    parts.push(`${Math.floor((100 * bytesDone) / bytesTotal)}%`);
  } else if (bytesDone > 0) parts.push(formatBytes(bytesDone));
  if (rate !== undefined && fraction === undefined) {
    parts.push(rate === 0 ? 'standing still' : `${formatBytes(rate)}/s`);
    const leftMs = (1000 * (bytesTotal - bytesDone)) / rate;
    if (rate > 0 && leftMs > 0) parts.push(`${formatDuration(leftMs)} left`);
  }
  if (item !== '') parts.push(item);
  return parts.join('  ');
}
