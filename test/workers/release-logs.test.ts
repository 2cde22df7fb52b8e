import {
  appendFile,
  mkdir,
  readdir,
  readFile,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { createLogger } from '../../workers/logger.ts';
import { observedLogger } from '../../workers/observed-logger.ts';
import { appendToReleaseLog, releaseLogPath } from '../../workers/release-logs.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

const HOSTILE = [
  '../../../etc/passwd',
  '..',
  '.hidden',
  'a/b',
  'a\\b',
  'a%2Fb',
  'night:2026-11-28T02:00:00Z',
  'x'.repeat(1000),
  `${'x'.repeat(999)}y`,
  'lone \ud800',
  'a\nb\u0000c',
  'é'.repeat(100),
];

describe('the file of a release', () => {
  it('is named as the release, which its merge shares', () => {
    const path = join('/srv/home', 'logs', 'releases', 'release-tone-1.2.20261128.log');
    expect(releaseLogPath('/srv/home', 'release-tone-1.2.20261128')).toBe(path);
    expect(releaseLogPath('/srv/home', 'release-tone-1.2.20261128/merge')).toBe(path);
  });

  it('is in its directory and of its own, whatever the id', async () => {
    const home = await temporaryDirectory();
    const directory = join(home, 'logs', 'releases');
    const paths = HOSTILE.map((id) => releaseLogPath(home, id));
    expect(new Set(paths).size).toBe(HOSTILE.length);
    for (const [index, path] of paths.entries()) {
      expect(dirname(path)).toBe(directory);
      appendToReleaseLog(home, HOSTILE[index] ?? '', 'line\n');
    }
    expect(await readdir(directory)).toHaveLength(HOSTILE.length);
  });

  it('is begun anew when it is full, and the one before is kept', async () => {
    const home = await temporaryDirectory();
    for (let index = 0; index < 25; index++) {
      appendToReleaseLog(home, 'r', `${index}`.padStart(9, '0').concat('\n'), 100);
    }
    const path = releaseLogPath(home, 'r');
    const kept = (await readFile(`${path}.1`, 'utf8')) + (await readFile(path, 'utf8'));
    expect(kept.trimEnd().split('\n').map(Number)).toEqual(
      Array.from({ length: 15 }, (_, index) => index + 10),
    );
    expect((await readdir(dirname(path))).sort()).toEqual(['r.log', 'r.log.1']);
  });

  it('that cannot be written harms nobody', async () => {
    const home = await temporaryDirectory();
    await mkdir(join(home, 'logs'));
    await writeFile(join(home, 'logs', 'releases'), 'a file where a directory should be');
    expect(() => appendToReleaseLog(home, 'r', 'line\n')).not.toThrow();
  });

  it('is left as it is where the disk is full', async () => {
    const home = await temporaryDirectory();
    const path = releaseLogPath(home, 'r');
    await mkdir(dirname(path), { recursive: true });
    await symlink('/dev/full', path);
    await expect(appendFile(path, 'line')).rejects.toThrow('ENOSPC');
    expect(() => appendToReleaseLog(home, 'r', 'line\n')).not.toThrow();
  });
});

describe('entries of workers', () => {
  async function entriesOf(log: (logger: ReturnType<typeof observedLogger>) => void) {
    const home = await temporaryDirectory();
    log(observedLogger(createLogger('error'), { home, host: 'h1' }));
    const text = await readFile(releaseLogPath(home, 'r'), 'utf8').catch(() => '');
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }

  const ACTIVITY = {
    workflowId: 'r/merge',
    workflowRunId: 'run',
    activityType: 'mergeShard',
    activityId: '7',
    attempt: 2,
    namespace: 'default',
    taskToken: 'secret-token',
    taskQueue: 'weldline-merge',
  };

  it('say release, stage, activity, attempt and host, whatever level the worker logs at', async () => {
    const entries = await entriesOf((logger) => logger.info('Activity finished', ACTIVITY));
    expect(entries).toEqual([
      {
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        level: 'INFO',
        message: 'Activity finished',
        release: 'r',
        stage: 'merge',
        activity: 'mergeShard',
        attempt: 2,
        run: 'run',
        taskQueue: 'weldline-merge',
        host: 'h1',
      },
    ]);
  });

  it('keep their message where what they tell has one too', async () => {
    const waiting = { workflowId: 'r', stage: 'merge', code: 'disk.full', message: 'No space' };
    const [entry] = await entriesOf((logger) => logger.warn('The release waits', waiting));
    expect(entry).toMatchObject({ message: 'The release waits', reason: 'No space' });
  });

  it('are told once: what the SDK says of the same attempt is left out', async () => {
    const entries = await entriesOf((logger) => {
      logger.warn('Activity failed', { ...ACTIVITY, sdkComponent: 'worker' });
      logger.warn('Activity failed', { ...ACTIVITY, sdkComponent: 'activity', code: 'disk.full' });
      logger.debug('Details', ACTIVITY);
      logger.info('Worker state changed', { taskQueue: 'weldline' });
    });
    expect(entries.map(({ code }) => code)).toEqual(['disk.full']);
  });

  it('hold no text without end, and of an error its name and message', async () => {
    const error = Object.assign(new Error('m'.repeat(100_000)), { token: 'secret-token' });
    const [entry] = await entriesOf((logger) =>
      logger.warn('It broke', { workflowId: 'r', error }),
    );
    expect(entry.error).toMatch(/^Error: m+…$/);
    expect(JSON.stringify(entry).length).toBeLessThan(10_000);
    expect(JSON.stringify(entry)).not.toContain('secret-token');
  });
});

it('the log of a process that begins goes into a new file where the old one is large', async () => {
  const path = join(await temporaryDirectory(), 'worker.log');
  await writeFile(path, '');
  await truncate(path, 17 * 1024 * 1024);
  createLogger('info', path).info('Working');
  await vi.waitFor(async () => expect(await readFile(path, 'utf8')).toContain('"Working"'), 30_000);
  expect((await stat(`${path}.1`)).size).toBe(17 * 1024 * 1024);
});
