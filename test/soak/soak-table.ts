/** What many rounds came to: by fault and point, and how much work was repeated. */
import { FAULT_KINDS, POINTS } from './draw-round.ts';
import type { RoundOutcome } from './run-round.ts';

/** Markdown. */
export function soakTable(outcomes: readonly RoundOutcome[]): string {
  return [faultTable(outcomes), '', workTable(outcomes), '', stopsOf(outcomes)].join('\n');
}

function faultTable(outcomes: readonly RoundOutcome[]): string {
  const struck = outcomes.flatMap(({ faults, problems }) =>
    faults.map((fault) => ({ ...fault, isWell: problems.length === 0 })),
  );
  const points = POINTS.filter((point) => struck.some((fault) => fault.point === point));
  const rows = FAULT_KINDS.flatMap((kind) => {
    const all = struck.filter((fault) => fault.kind === kind);
    if (all.length === 0) return [];
    const hits = all.filter(({ victim }) => victim !== undefined);
    const cells = points.map((point) => hits.filter((fault) => fault.point === point).length || '');
    const bad = hits.filter(({ isWell }) => !isWell).length;
    return [[kind, ...cells, hits.length, all.length - hits.length, bad]];
  });
  return table(['fault', ...points, 'struck', 'came too late', 'in rounds that failed'], rows);
}

function workTable(outcomes: readonly RoundOutcome[]): string {
  const groups = new Map<string, RoundOutcome[]>();
  for (const outcome of outcomes) {
    const { shape, mode } = outcome.drawn;
    const key = `${shape}, ${mode}`;
    groups.set(key, [...(groups.get(key) ?? []), outcome]);
  }
  const rows = [...groups]
    .sort()
    .map(([key, all]) => [
      key,
      all.length,
      all.filter(({ problems }) => problems.length === 0).length,
      sum(all, ({ faults }) => faults.filter(({ victim }) => victim !== undefined).length),
      sum(all, ({ commands }) => commands),
      range(all, ({ ms }) => ms / 1000),
      range(all, ({ fetched }) => fetched / 1e6),
      range(all, ({ sent }) => sent / 1e6),
      range(all, ({ shardsRepeated = 0 }) => shardsRepeated),
    ]);
  const titles = ['rounds of', 'rounds', 'went well', 'faults', 'commands'];
  const ranges = ['s', 'MB fetched', 'MB uploaded', 'shards begun again'];
  return table([...titles, ...ranges.map((each) => `${each} (median, most)`)], rows);
}

function stopsOf(outcomes: readonly RoundOutcome[]): string {
  const counts = new Map<string, number>();
  for (const stop of outcomes.flatMap(({ stops }) => stops)) {
    counts.set(stop, (counts.get(stop) ?? 0) + 1);
  }
  const told = [...counts].sort(([, one], [, other]) => other - one);
  return `Commands that stopped with a reason: ${told.map(([code, count]) => `${code} ${count}`).join(', ') || 'none'}.`;
}

function sum<T>(all: readonly T[], of: (each: T) => number): number {
  return all.reduce((total, each) => total + of(each), 0);
}

function range<T>(all: readonly T[], of: (each: T) => number): string {
  const values = all.map(of).sort((one, other) => one - other);
  const short = (value = 0): string => value.toFixed(value < 10 && value % 1 !== 0 ? 1 : 0);
  return `${short(values[Math.floor(values.length / 2)])}, ${short(values.at(-1))}`;
}

function table(titles: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n');
}
