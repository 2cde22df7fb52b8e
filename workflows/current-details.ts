import { setCurrentDetails } from '@temporalio/workflow';
import type { Paused, StageStatus, Waiting } from './messages.ts';

/** What the page of a release in Temporal's UI says of it, as Markdown. */
export function showDetails(
  stages: readonly StageStatus[],
  waitings: readonly Waiting[],
  paused: Paused | undefined,
): void {
  const done = stages.filter(({ state }) => state === 'done').map(({ stage }) => stage);
  const running = stages.filter(({ state }) => state === 'running').map(({ stage }) => stage);
  const lines = [
    ...(paused === undefined ? [] : [`**Paused** by ${paused.by}: \`weldline resume\` goes on.`]),
    ...waitings.map(({ stage, code, message }) => `**Waits** (${stage}, ${code}): ${message}`),
    ...(running.length === 0 ? [] : [`Now: ${running.join(', ')}`]),
    ...(done.length === 0 ? [] : [`Done: ${done.join(', ')}`]),
  ];
  setCurrentDetails(lines.join('\n\n'));
}
