import { formatBytes } from '../cli/format.ts';
import type { Measurement } from './contestants.ts';
import type { Machine } from './machine.ts';

/** All that one run of the benchmark found. */
export interface MergeResults {
  readonly date: string;
  readonly weightBytes: number;
  readonly layers: number;
  readonly rank: number;
  readonly rounds: number;
  readonly machine: Machine;
  readonly loadBefore: number;
  readonly loadAfter: number;
  /** Time of `weldline plan` with remembered digests. */
  readonly planSeconds: number;
  /** By contestant, a measurement for each round that it took part in. */
  readonly measurements: Readonly<Record<string, readonly Round[]>>;
  /** Why there is no PEFT column, if there is none. */
  readonly peftMissing?: string | undefined;
}

export type Round = Measurement & { readonly round: number };

/** The contestant that all others are compared with. */
export const YARDSTICK = 'cp + sync';

/** A merge of a base that was never read before, and one whose digest an earlier run remembers. */
export const BASE_NEW = 'weldline merge';
export const BASE_KNOWN = 'weldline merge, base known';

const HEADINGS = ['', 'seconds', 'min to max', '× cp', 'MB/s', 'CPU s', 'peak memory', 'rounds'];

/** The results as a document in Markdown, which reads well on a terminal too. */
export function formatResults(results: MergeResults): string {
  const { machine, measurements, weightBytes } = results;
  const rows = Object.entries(measurements).map(([name, runs]) => {
    const seconds = runs.map((run) => run.seconds);
    return [
      name,
      median(seconds).toFixed(2),
      `${Math.min(...seconds).toFixed(2)} to ${Math.max(...seconds).toFixed(2)}`,
      ratioTo(measurements[YARDSTICK] ?? [], runs).toFixed(2),
      (weightBytes / 1e6 / median(seconds)).toFixed(0),
      median(runs.map((run) => run.cpuSeconds)).toFixed(1),
      formatBytes(Math.max(...runs.map((run) => run.peakMemoryBytes))),
      String(runs.length),
    ];
  });
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  return `${[
    `# Merge of ${formatBytes(weightBytes)} in bfloat16, r = ${results.rank}, ${results.date}`,
    formatMarkdownTable([HEADINGS, ...rows]),
    'Seconds are medians over rounds, of whole processes, outputs synced. Ratios are medians of ' +
      'the ratios within each round. CPU seconds are of all threads. The inputs were read once before every run, so that they ' +
      'were in the page cache.',
    ...(results.peftMissing === undefined ? [] : [results.peftMissing]),
    '## Where the time goes',
    formatMarkdownTable([['', 'seconds'], ...partRows(results)]),
    '## Machine',
    [
      `- ${machine.processor}, ${machine.cores} cores, ${formatBytes(machine.memoryBytes)}, ` +
        `${machine.fileSystem}, ${machine.system}`,
      `- load average ${results.loadBefore.toFixed(1)} before, ${results.loadAfter.toFixed(1)} after`,
      `- ${versions.join(', ')}`,
    ].join('\n'),
  ].join('\n\n')}\n`;
}

/** weldline's parts are differences between runs; PEFT reports its own. */
function partRows({ measurements, planSeconds }: MergeResults): string[][] {
  const secondsOf = (name: string): number =>
    median((measurements[name] ?? []).map((run) => run.seconds));
  const known = secondsOf(BASE_KNOWN);
  const rows: [string, number][] = [
    ['weldline: start, read headers, plan', planSeconds],
    ['weldline: hash the inputs, if not known', secondsOf(BASE_NEW) - known],
    ['weldline: merge, hash the output, sync', known - planSeconds],
  ];
  for (const [name, runs] of Object.entries(measurements)) {
    for (const part of Object.keys(runs[0]?.parts ?? {})) {
      rows.push([`${name}: ${part}`, median(runs.map((run) => run.parts?.[part] ?? 0))]);
    }
  }
  return rows.map(([name, seconds]) => [name, seconds.toFixed(2)]);
}

/** Rounds are compared with themselves: what slows one run down slows its neighbours down. */
function ratioTo(yardstick: readonly Round[], runs: readonly Round[]): number {
  return median(
    runs.flatMap(({ round, seconds }) => {
      const other = yardstick.find((run) => run.round === round);
      return other === undefined ? [] : [seconds / other.seconds];
    }),
  );
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)] ?? Number.NaN;
  return Number.isInteger(middle) ? (upper + (sorted[middle - 1] ?? Number.NaN)) / 2 : upper;
}

function formatMarkdownTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(3, ...rows.map((row) => row[i]!.length)));
  // Names to the left, numbers to the right.
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`;
  const rule = widths.map((width, i) =>
    i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [line(rows[0] ?? []), line(rule), ...rows.slice(1).map(line)].join('\n');
}
