/** `weldline schedule …` on the real server. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ScheduleOverlapPolicy } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { nightsOf } from '../../cli/nightly-schedules.ts';
import {
  runScheduleBackfill,
  runScheduleDelete,
  runSchedulePause,
  runScheduleResume,
  runScheduleTrigger,
} from '../../cli/schedule-control.ts';
import { runScheduleCreate, type ScheduleCreateCommand } from '../../cli/schedule-create.ts';
import { runScheduleList, runScheduleShow } from '../../cli/schedule-list.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { approveUpdate } from '../../workflows/messages.ts';
import type { releaseModel } from '../../workflows/release-model.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  recipeText,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startTestWorkers } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { ToldOutput } from '../harness/told-output.ts';
import { waitFor } from '../harness/wait-for.ts';

vi.setConfig({ testTimeout: 240_000 });

let server: TestServer;
let workers: RunningWorkers;
let setup: ReleaseSetup;

beforeAll(async () => {
  // Each command listens for Ctrl-C, as if it had a process of its own.
  process.setMaxListeners(100);
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'case'));
  workers = await startTestWorkers(server, setup.environment);
  vi.stubEnv('TEMPORAL_ADDRESS', server.address);
  vi.stubEnv('WELDLINE_HOME', setup.home);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await workers.stop();
  await server.stop();
});

async function write(changes: RecipeChanges): Promise<string> {
  const path = join(setup.directory, `${changes.name}.yaml`);
  await mkdir(setup.directory, { recursive: true });
  await writeFile(path, recipeText(setup, { version: '1.2.{date}', ...changes }));
  return path;
}

const OPTIONS: ScheduleCreateCommand = {
  cron: ['0 2 * * *'],
  timezone: 'Europe/Berlin',
  overlap: 'skip',
  catchUp: '12h',
  timeout: '20h',
};

async function create(
  path: string,
  options: Partial<ScheduleCreateCommand> = {},
): Promise<ToldOutput> {
  const output = new ToldOutput();
  await runScheduleCreate(path, { ...OPTIONS, ...options }, output);
  return output;
}

async function said(run: (output: ToldOutput) => Promise<number>): Promise<ToldOutput> {
  const output = new ToldOutput();
  expect(await run(output)).toBe(0);
  return output;
}

const show = (id: string): Promise<ToldOutput> => said((output) => runScheduleShow(id, output));
const list = (): Promise<ToldOutput> => said((output) => runScheduleList(output));

describe('a schedule', () => {
  const id = 'nightly-tone';

  it('is created with settings that say how it behaves, and tells when it runs next', async () => {
    const output = await create(await write({ name: 'tone' }), { note: 'ask the audio team' });
    const { next } = output.as<{ next: string[] }>();
    expect(next).toHaveLength(3);
    for (const [index, time] of next.entries()) {
      expect(output.lines[index + 1]).toMatch(
        /^ {2}\d{4}-\d\d-\d\d 02:00 Europe\/Berlin {2}tone 1\.2\.\d{8}$/,
      );
      expect(new Date(time).getUTCHours()).toBeOneOf([0, 1]);
    }
    const { policies, action } = await server.client.schedule.getHandle(id).describe();
    expect(policies).toMatchObject({
      overlap: ScheduleOverlapPolicy.SKIP,
      catchupWindow: 12 * 3_600_000,
      pauseOnFailure: false,
    });
    expect(action.workflowExecutionTimeout).toBe(20 * 3_600_000);
    const listed = await waitFor('the schedule in the list', async () => {
      const { text } = await list();
      return text.includes('nightly-tone') ? text : undefined;
    });
    expect(listed).toMatch(
      /^nightly-tone +0 2 \* \* \* +Europe\/Berlin +\d{4}-\d\d-\d\d 02:00 +none +none yet$/m,
    );
  });

  it('is not made twice, unless it is to be replaced', async () => {
    const path = await write({ name: 'tone' });
    await expect(create(path)).rejects.toMatchObject({
      code: 'schedule.exists',
      message: expect.stringContaining('--replace'),
    });
    await create(path, { replace: true, cron: ['30 3 * * *'], overlap: 'buffer-one' });
    const { text } = await show(id);
    expect(text).toContain('30 3 * * * (Europe/Berlin)');
    expect(text).toContain('overlap buffer-one, catch-up 12h, timeout 20h');
    expect(text).toContain('ask the audio team');
  });

  it('is paused and resumed, with the reason, and found by the name of its recipe', async () => {
    await said((output) => runSchedulePause('tone', { note: 'the base moves' }, output));
    expect((await list()).text).toMatch(/nightly-tone .* paused /);
    const { text } = await show(id);
    expect(text).toContain('the base moves');
    await create(await write({ name: 'tone' }), { replace: true });
    expect((await show(id)).as<object>()).toMatchObject({ paused: true });
    await said((output) => runScheduleResume(id, {}, output));
    const resumed = (await show(id)).as<object>();
    expect(resumed).toMatchObject({ paused: false, note: 'the base moves' });
  });

  it('is deleted, and then not known; those that are, are named', async () => {
    await create(await write({ name: 'other' }));
    await said((output) => runScheduleDelete(id, output));
    await expect(show(id)).rejects.toMatchObject({
      code: 'schedule.not-found',
      message: expect.stringContaining('There is nightly-other'),
    });
  });
});

describe('a night that is still at work', () => {
  it('has the next one skipped, which lists show, as what it waits for', async () => {
    const id = 'nightly-asked';
    // Of its own accord it runs on no day near.
    const path = await write({ name: 'asked', approval: 'required' });
    await create(path, { cron: ['0 2 29 2 *'] });
    await said((output) => runScheduleTrigger(id, output));
    const shown = await waitFor('the night to wait', async () => {
      const output = await show(id);
      return output.text.includes('waits (approve)') ? output : undefined;
    });
    expect(shown.text).toMatch(/releasing 1\.2\.\d{8}: waits \(approve\): The recipe asks for/);
    await expect(said((output) => runScheduleTrigger(id, output))).rejects.toMatchObject({
      code: 'release.already-running',
    });
    await server.client.schedule.getHandle(id).trigger(ScheduleOverlapPolicy.SKIP);
    await waitFor('the skipped night in the list', async () =>
      /nightly-asked .* 1 skipped \(overlap\) /.test((await list()).text) ? true : undefined,
    );
    const [night] = await nightsOf(server.client, id, 1);
    const release = server.client.workflow.getHandle<typeof releaseModel>(night?.release ?? '');
    await release.executeUpdate(approveUpdate, { args: [{ by: 'a person' }] });
    await server.client.workflow.getHandle(night?.id ?? '').result();
    // Lists follow a little behind.
    const { last, missed } = await waitFor('the end of the night in the list', async () => {
      const told = (await show(id)).as<{ last: { endedAt?: string }; missed: object }>();
      return told.last.endedAt === undefined ? undefined : told;
    });
    expect(last).toMatchObject({ state: 'released' });
    expect(missed).toEqual({ overlap: 1, catchUp: 0, failed: 0 });
  });
});

describe('what cannot be a schedule', () => {
  it.each<[string, Partial<ScheduleCreateCommand>, RegExp]>([
    ['a zone that there is not', { timezone: 'Europe/Berlinn' }, /no time zone "Europe\/Berlinn"/],
    ['a cron of four fields', { cron: ['0 2 * *'] }, /4 field\(s\): expected 5/],
    [
      'a cron of words',
      { cron: ['0 2 * * someday'] },
      /"0 2 \* \* someday" in Europe\/Berlin, which the server refuses: DayOfWeek/,
    ],
    ['a zone in the cron', { cron: ['TZ=UTC 0 2 * * *'] }, /say the time zone with --timezone/],
    ['a time without a unit', { timeout: '20' }, /--timeout is "20": expected .* from 10m to 7d/],
    ['a window of nothing', { catchUp: '0h' }, /--catch-up is "0h"/],
    ['an id with spaces', { id: 'a b' }, /"a b" is no id/],
  ])('%s is refused, and nothing is made', async (_, options, message) => {
    const path = await write({ name: 'refused' });
    const attempt = create(path, options);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toMatchObject({
      code: expect.stringMatching(/^(cli\.usage|config\.invalid)$/),
    });
    expect((await list()).text).not.toContain('nightly-refused');
  });

  it('a recipe whose nights would all have one version, or nowhere to go', async () => {
    await expect(create(await write({ name: 'fixed', version: '1.2.0' }))).rejects.toThrow(
      /has the version 1\.2\.0, .* such as version: 1\.2\.\{date\}/,
    );
    await expect(create(await write({ name: 'nowhere', targets: [] }))).rejects.toThrow(
      /names no targets/,
    );
  });

  it('a schedule that runs twice a day under one version is told of', async () => {
    const output = await create(await write({ name: 'twice' }), { cron: ['0 2,14 * * *'] });
    expect(output.notes.join('\n')).toMatch(/several runs of it have the same version .*\{time\}/);
  });

  it.each([
    ['2026-10-32', '2026-11-01', /--from is "2026-10-32": expected a day/],
    ['2026-02-31', '2026-11-01', /--from is "2026-02-31"/],
    ['2026-10-03', '2026-10-01', /is not before/],
    ['2020-01-01', '2026-10-01', /more than 400 days/],
    ['2999-01-01', '2999-01-02', /lies in the future/],
  ])('a backfill from %s to %s is refused', async (from, to, message) => {
    const backfill = runScheduleBackfill('twice', { from, to }, new ToldOutput());
    await expect(backfill).rejects.toThrow(message);
  });
});
