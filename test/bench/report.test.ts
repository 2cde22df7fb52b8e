import { describe, expect, it } from 'vitest';
import type { Measurement } from '../../bench/measurement.ts';
import { type BenchResults, formatMarkdownTable, formatResults } from '../../bench/report.ts';

const copy: Measurement = {
  seconds: 2,
  userSeconds: 0.1,
  systemSeconds: 1.5,
  peakMemoryBytes: 2_400_000,
  disk: { busyShare: 0.5, readBytes: 0, writtenBytes: 1e9 },
};

const results: BenchResults = {
  date: '2030-01-02T03:04:05.000Z',
  modelBytes: 2_200_000_000,
  rounds: 1,
  eviction: undefined,
  machine: {
    processor: 'A processor',
    cores: 2,
    memoryBytes: 8e9,
    system: 'Linux 6',
    fileSystem: 'ext4',
    versions: { node: '24.0.0' },
  },
  cases: [
    {
      id: 'tools',
      title: 'beside other tools',
      cache: 'warm',
      loadBefore: 0.1,
      loadAfter: 1.9,
      rounds: [{ copy, PEFT: { ...copy, seconds: 30, parts: { import: 7, load: 1 } } }],
      absent: { mergekit: 'it is not set up: npm run setup:mergekit' },
      verdicts: [
        {
          title: 'PEFT against copy',
          target: { limit: 10, direction: 'at least', unit: 'times', judged: 'median' },
          values: [15],
          outcome: 'hit',
        },
        {
          title: 'mergekit against copy',
          target: { limit: 10, direction: 'at least', unit: 'times', judged: 'median' },
          values: [],
          outcome: 'not measured',
        },
      ],
    },
  ],
};

describe('formatResults', () => {
  const lines = formatResults(results).split('\n');
  const cellsOf = (start: string): string[] =>
    (lines.find((line) => line.startsWith(`| ${start}`)) ?? '')
      .split('|')
      .map((cell) => cell.trim());

  it('has a row for each target, with the outcome', () => {
    expect(cellsOf('PEFT against copy').slice(2, -1)).toEqual([
      ...['≥ 10.00 ×', '15.00 ×', '15.00 × to 15.00 ×', 'hit'],
    ]);
    expect(cellsOf('mergekit against copy').slice(2, -1)).toEqual([
      ...['≥ 10.00 ×', '', '', 'not measured'],
    ]);
  });

  it('says what each contestant took', () => {
    expect(cellsOf('copy ').slice(2, -1)).toEqual([
      ...['2.00', '2.00 to 2.00', '0.10', '1.50', '50 %', '0 B', '1.0 GB', '2.4 MB'],
    ]);
    expect(lines).toContain('- PEFT: import 7.00 s, load 1.00 s');
    expect(lines).toContain('- load average 0.1 before, 1.9 after');
  });

  it('names the command for what is missing, and too few rounds', () => {
    expect(lines).toContain(
      '- mergekit was not measured: it is not set up: npm run setup:mergekit',
    );
    expect(lines.join()).toContain('Fewer than 5: a trial, not a result.');
  });
});

describe('formatMarkdownTable', () => {
  it('aligns names to the left and numbers to the right', () => {
    expect(
      formatMarkdownTable([
        ['', 'seconds'],
        ['cp', '1.0'],
        ['weldline', '12.0'],
      ]),
    ).toBe(
      [
        '|          | seconds |',
        '| -------- | ------: |',
        '| cp       |     1.0 |',
        '| weldline |    12.0 |',
      ].join('\n'),
    );
  });
});
