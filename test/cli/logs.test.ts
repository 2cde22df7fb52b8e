import { appendFile, mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { logLine } from '../../cli/log-line.ts';
import { releaseLogPath } from '../../workers/release-logs.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { startCommand } from '../harness/command.ts';
import { weldlineHere } from '../harness/command-here.ts';

const line = (message: string, more: object = {}): string =>
  `${JSON.stringify({
    time: '2026-11-28T22:08:31.702Z',
    level: 'INFO',
    message,
    release: 'release-tone-1.0.0',
    stage: 'merge',
    activity: 'mergeShard',
    attempt: 1,
    run: '01a22433',
    host: 'gpu-3',
    ...more,
  })}\n`;

let home: string;
beforeEach(async () => {
  home = await temporaryDirectory();
  vi.stubEnv('WELDLINE_HOME', home);
});
afterEach(() => vi.unstubAllEnvs());

async function writeLog(id: string, text: string, ending = ''): Promise<void> {
  const path = releaseLogPath(home, id);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}${ending}`, text);
}

describe('the log of a release', () => {
  it('is printed for people, the older file first, or as it is', async () => {
    const late = line('Activity finished', { attempt: 2, durationMs: 486 });
    await writeLog('release-tone-1.0.0', line('Activity started'), '.1');
    await writeLog('release-tone-1.0.0', late);
    const { stdout, status } = await weldlineHere('logs', 'tone-1.0.0');
    expect(status).toBe(0);
    expect(stdout).toBe(
      '2026-11-28 22:08:31  INFO   merge/mergeShard  Activity started  host=gpu-3\n' +
        '2026-11-28 22:08:31  INFO   merge/mergeShard  Activity finished  attempt=2  host=gpu-3  ' +
        'durationMs=486\n',
    );
    const raw = await weldlineHere('logs', '--json');
    expect(raw.stdout).toBe(line('Activity started') + late);
  });

  it('that is not in this home is looked for elsewhere, by a person', async () => {
    for (const args of [['logs'], ['logs', 'tone-1.0.0']]) {
      const { status, stderr } = await weldlineHere(...args);
      expect(status).toBe(1);
      expect(stderr).toContain('look on the host that weldline status names');
    }
  });

  it('cannot steer a terminal, and what is no JSON stays as it is', () => {
    expect(logLine('\u001b[2Jgone')).toBe('\ufffd[2Jgone');
    expect(logLine(line('a\u001b[31mred').trimEnd())).toContain('a\ufffd[31mred');
    expect(logLine('{"time": 1}')).toBe('{"time": 1}');
    expect(logLine('null')).toBe('null');
  });

  it('is followed from one file into the next', async () => {
    const path = releaseLogPath(home, 'release-tone-1.0.0');
    await writeLog('release-tone-1.0.0', line('one'));
    const running = await startCommand(['logs', '--follow'], {
      variables: { WELDLINE_HOME: home },
    });
    await running.hasWritten(/ one /);
    // As a worker does it: a last line, and the next one goes into a new file.
    await appendFile(path, line('two'));
    await rename(path, `${path}.1`);
    await appendFile(path, line('three') + line('four'));
    await running.hasWritten(/ four /);
    running.child.kill('SIGINT');
    const { stdout, status } = await running.ended;
    expect(status).toBe(0);
    expect(stdout.match(/one|two|three|four/g)).toEqual(['one', 'two', 'three', 'four']);
  });

  it('an error cannot steer a terminal either', async () => {
    const { stderr } = await weldlineHere('logs', 'a\u001b[31mred\u009b2J');
    expect(stderr).toContain('has no log of a\ufffd[31mred\ufffd2J.');
  });
});
