import { patched, setCurrentDetails, upsertMemo } from '@temporalio/workflow';
import { LISTED, type Listed, type Paused, type StageStatus, type Waiting } from './messages.ts';

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

/**
 * Writes what lists say where it is another than before: each time is an event of the history.
 * @param before what was written last
 */
export function showInLists(
  before: Listed | undefined,
  stages: readonly StageStatus[],
  waitings: readonly Waiting[],
  paused: Paused | undefined,
): Listed | undefined {
  const [waiting] = waitings;
  const state = paused === undefined ? (waiting === undefined ? 'running' : 'waiting') : 'paused';
  const shown = stages.filter((each) => ['running', 'waiting', 'paused'].includes(each.state));
  const listed: Listed = {
    state,
    stages: shown.map(({ stage }) => stage),
    ...(waiting === undefined ? {} : { code: waiting.code }),
  };
  // Between two stages nothing runs for a moment.
  if (shown.length === 0 || JSON.stringify(listed) === JSON.stringify(before)) return before;
  if (!patched('listed')) return before;
  upsertMemo({ [LISTED]: listed });
  return listed;
}
