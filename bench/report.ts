import { formatBytes } from '../cli/format.ts';
import type { Machine } from './machine.ts';
import type { Measurement } from './measurement.ts';
import type { CaseResult } from './run-case.ts';
import { median } from './statistics.ts';
import { formatTarget, formatValue, type Verdict } from './verdict.ts';

/** All that one run of the benchmark found. */
export interface BenchResults {
  readonly date: string;
  readonly modelBytes: number;
  readonly rounds: number;
  readonly machine: Machine;
  /** How cold caches were made; undefined where they could not be. */
  readonly eviction: string | undefined;
  readonly cases: readonly CaseResult[];
}

/** With fewer, one slow run decides. */
const ROUNDS_MIN = 5;

/** The results as a document in Markdown, which reads well on a terminal too. */
export function formatResults(results: BenchResults): string {
  const { date, modelBytes, rounds, machine, cases } = results;
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  return `${[
    `# Benchmark, ${date}`,
    `Checkpoint of ${formatBytes(modelBytes)} in bfloat16 where a case names no other, ` +
      `${rounds} ${rounds === 1 ? 'round' : 'rounds'}. ` +
      (rounds < ROUNDS_MIN ? `**Fewer than ${ROUNDS_MIN}: a trial, not a result.** ` : '') +
      'Contestants of a case run on the same files, in another order in every round. Ratios are ' +
      'taken within a round; a target holds for the median of the rounds, or, where it says ' +
      'always, for every one. Seconds are of whole processes, with their output synced.',
    formatMarkdownTable([
      ['case', 'target', 'measured', 'min to max', 'result'],
      ...cases.flatMap(({ verdicts }) => verdicts.map(verdictRow)),
    ]),
    ...cases.map(formatCase),
    '## Machine',
    [
      `- ${machine.processor}, ${machine.cores} cores, ${formatBytes(machine.memoryBytes)}`,
      `- ${machine.fileSystem}, ${machine.system}`,
      `- cold caches: ${results.eviction ?? 'none to be had'}`,
      `- ${versions.join(', ')}`,
    ].join('\n'),
  ].join('\n\n')}\n`;
}

function verdictRow({ title, target, values, outcome }: Verdict): string[] {
  const format = (value: number): string => formatValue(value, target.unit);
  if (values.length === 0) return [title, formatTarget(target), '', '', outcome];
  const range = `${format(Math.min(...values))} to ${format(Math.max(...values))}`;
  return [title, formatTarget(target), format(median(values)), range, outcome];
}

function formatCase({ id, title, loadBefore, loadAfter, rounds, absent }: CaseResult): string {
  const names = [...new Set(rounds.flatMap((round) => Object.keys(round)))].sort();
  const runsOf = (name: string): Measurement[] =>
    rounds.flatMap((round) => (round[name] === undefined ? [] : [round[name]]));
  const table = formatMarkdownTable([
    [
      '',
      'seconds',
      'min to max',
      'user s',
      'system s',
      'disk busy',
      'read',
      'written',
      'peak memory',
    ],
    ...names.map((name) => contestantRow(name, runsOf(name))),
  ]);
  return [
    `## ${id}: ${title}`,
    ...(names.length === 0 ? [] : [table]),
    [
      ...names.flatMap((name) => detailsOf(name, runsOf(name))),
      ...Object.entries(absent).map(([name, reason]) => `- ${name} was not measured: ${reason}`),
      `- load average ${loadBefore.toFixed(1)} before, ${loadAfter.toFixed(1)} after`,
    ].join('\n'),
  ].join('\n\n');
}

function contestantRow(name: string, runs: readonly Measurement[]): string[] {
  const seconds = runs.map((run) => run.seconds);
  const of = (value: (run: Measurement) => number): number => median(runs.map(value));
  const hasDisk = runs.every(({ disk }) => disk !== undefined);
  return [
    name,
    of((run) => run.seconds).toFixed(2),
    `${Math.min(...seconds).toFixed(2)} to ${Math.max(...seconds).toFixed(2)}`,
    of((run) => run.userSeconds).toFixed(2),
    of((run) => run.systemSeconds).toFixed(2),
    hasDisk ? `${(100 * of((run) => run.disk?.busyShare ?? 0)).toFixed(0)} %` : '',
    hasDisk ? formatBytes(Math.round(of((run) => run.disk?.readBytes ?? 0))) : '',
    hasDisk ? formatBytes(Math.round(of((run) => run.disk?.writtenBytes ?? 0))) : '',
    formatBytes(Math.max(...runs.map((run) => run.peakMemoryBytes))),
  ];
}

/** What a program reports of its parts, and the memory of what it started. */
function detailsOf(name: string, runs: readonly Measurement[]): string[] {
  const parts = Object.keys(runs[0]?.parts ?? {}).map((part) => {
    const seconds = median(runs.map((run) => run.parts?.[part] ?? 0));
    return `${part} ${seconds.toFixed(2)} s`;
  });
  const children = [...new Set(runs.flatMap((run) => Object.keys(run.childMemoryBytes ?? {})))];
  const memory = children.map((child) => {
    const peak = Math.max(...runs.map((run) => run.childMemoryBytes?.[child] ?? 0));
    return `${child} ${formatBytes(peak)}`;
  });
  return [
    ...(parts.length === 0 ? [] : [`- ${name}: ${parts.join(', ')}`]),
    ...(memory.length === 0 ? [] : [`- peak memory beside ${name}: ${memory.join(', ')}`]),
  ];
}

/** Names to the left, numbers to the right. */
export function formatMarkdownTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(3, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string => {
    const cells = widths.map((width, i) =>
      i === 0 ? (row[i] ?? '').padEnd(width) : (row[i] ?? '').padStart(width),
    );
    return `| ${cells.join(' | ')} |`;
  };
  const rule = widths.map((width, i) =>
    i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [line(rows[0] ?? []), line(rule), ...rows.slice(1).map(line)].join('\n');
}
