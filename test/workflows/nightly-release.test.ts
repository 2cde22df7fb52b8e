/** Thirty nights of a schedule on the real server, made up for at once. */
import { readdir, readlink, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { nightsOf, type ScheduledNight } from '../../cli/nightly-schedules.ts';
import { runScheduleBackfill } from '../../cli/schedule-control.ts';
import { runScheduleCreate } from '../../cli/schedule-create.ts';
import { runScheduleList } from '../../cli/schedule-list.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import type { NightResult } from '../../workflows/nightly-messages.ts';
import { writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, tinyAdapter } from '../doubles/tiny-model.ts';
import { type ReleaseSetup, recipeText, setUpRelease } from '../harness/release-setup.ts';
import { startTestWorkers } from '../harness/running-release.ts';
import { type ScriptedEndpoint, startScriptedEndpoint } from '../harness/scripted-endpoint.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { ToldOutput } from '../harness/told-output.ts';
import { waitFor } from '../harness/wait-for.ts';

vi.setConfig({ testTimeout: 240_000 });

let server: TestServer;
let workers: RunningWorkers;
let setup: ReleaseSetup;
let endpoint: ScriptedEndpoint;
let path: string;

beforeAll(async () => {
  // Each command listens for Ctrl-C, as if it had a process of its own.
  process.setMaxListeners(100);
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'case'));
  endpoint = await startScriptedEndpoint(setup.directory);
  workers = await startTestWorkers(server, setup.environment);
  vi.stubEnv('TEMPORAL_ADDRESS', server.address);
  vi.stubEnv('WELDLINE_HOME', setup.home);
  path = join(setup.directory, 'nightly.yaml');
  const text = recipeText(setup, { version: '1.2.{date}', aliases: ['latest'] });
  await writeFile(path, `${text}evaluate: ${JSON.stringify(endpoint.evaluate)}\n`);
  const options = { timezone: 'Europe/Berlin', overlap: 'skip', catchUp: '12h', timeout: '20h' };
  // The nights that are made up for here; of its own accord it runs in no other month.
  const created = { ...options, cron: ['30 0 * 10 *'], overlap: 'skip' } as const;
  await runScheduleCreate(path, created, new ToldOutput());
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await workers.stop();
  await endpoint.close();
  await server.stop();
});
afterEach(() => {
  endpoint.regressed = false;
});

const ID = 'nightly-tone-model';

const day = (number: number): string => `2026-10-${String(number).padStart(2, '0')}`;

/** Makes up for nights of one month. @returns them in their order */
async function nights(first: number, last: number): Promise<readonly ScheduledNight[]> {
  await runScheduleBackfill(ID, { from: day(first), to: day(last) }, new ToldOutput());
  // They go one after the other: when the last has ended, all have. Summer time ends on the 25th.
  const time = last > 25 ? '23:30' : '22:30';
  const night = server.client.workflow.getHandle(`${ID}-${day(last - 1)}T${time}:00Z`);
  await waitFor(`the night of ${day(last)}`, () => night.describe().catch(() => undefined));
  await night.result().catch(() => undefined);
  const all = await waitFor('the last night in the list', async () => {
    const found = await nightsOf(server.client, ID, 100);
    return found.every(({ endedAt }) => endedAt !== undefined) ? found : undefined;
  });
  return all.toSorted((a, b) => a.nominalTime.localeCompare(b.nominalTime)).slice(first - 1, last);
}

const outcomes = (some: readonly ScheduledNight[]): string[] =>
  some.map(({ state, version = '' }) => `${state} ${version}`.trimEnd());

/** Another adapter in the place of the one that the recipe names. */
const trainAgain = (seed: number): Promise<void> =>
  writeFiles(setup.adapter, adapterFiles(tinyAdapter({ seed })));

const latest = (): Promise<string> => readlink(join(setup.target, 'latest'));

describe('thirty nights', () => {
  it('release what is new under the date that clocks of the zone show, and then say unchanged', async () => {
    const found = await nights(1, 12);
    expect(outcomes(found)).toEqual([
      'released 1.2.20261001',
      ...Array.from(
        { length: 11 },
        (_, n) => `unchanged 1.2.202610${String(n + 2).padStart(2, '0')}`,
      ),
    ]);
    expect(found[0]).toMatchObject({
      nominalTime: '2026-09-30T22:30:00.000Z',
      detail: 'nothing was released before',
    });
    const handle = server.client.workflow.getHandle(found[11]?.id ?? '');
    const result = (await handle.result()) as NightResult;
    expect(result).toMatchObject({ outcome: 'unchanged', last: { version: '1.2.20261001' } });
    expect(await latest()).toMatch(/1\.2\.20261001/);
  });

  it('release again under the night’s own date when the adapter was trained again', async () => {
    await trainAgain(7);
    const found = await nights(13, 17);
    expect(outcomes(found).slice(0, 2)).toEqual([
      'released 1.2.20261013',
      'unchanged 1.2.20261014',
    ]);
    expect(found[0]?.detail).toBe('changed: adapter tone');
    expect(outcomes(found).filter((outcome) => outcome.startsWith('released'))).toHaveLength(1);
    expect(await latest()).toMatch(/1\.2\.20261013/);
  });

  it('fail when the gate refuses, each night anew, and never move the alias', async () => {
    endpoint.regressed = true;
    await trainAgain(8);
    const found = await nights(18, 19);
    expect(outcomes(found)).toEqual(['failed 1.2.20261018', 'failed 1.2.20261019']);
    expect(found[0]?.detail).toMatch(/^The gate refused merged/);
    expect(await latest()).toMatch(/1\.2\.20261013/);
    expect((await readdir(setup.target)).filter((name) => name.includes('20261018'))).toEqual([]);
  });

  it('fail when an input is gone, and go on with "unchanged" when it is there as it was', async () => {
    await rename(setup.adapter, `${setup.adapter}-away`);
    const found = await nights(20, 22);
    expect(outcomes(found)).toEqual(['failed', 'failed', 'failed']);
    expect(found[0]?.detail).toContain(setup.adapter);
    await rename(`${setup.adapter}-away`, setup.adapter);
    await trainAgain(7);
    // On a host that was put up anew only the schedule remembers.
    await rm(join(setup.home, 'ledger'), { recursive: true });
    expect(outcomes(await nights(23, 26))).toEqual(
      ['23', '24', '25', '26'].map((day) => `unchanged 1.2.202610${day}`),
    );
  });

  it('publish anew what is no longer where it was published', async () => {
    await rm(join(setup.target, await latest()), { recursive: true });
    const found = await nights(27, 30);
    expect(outcomes(found)).toEqual([
      'released 1.2.20261027',
      ...['28', '29', '30'].map((day) => `unchanged 1.2.202610${day}`),
    ]);
    expect(found[0]?.detail).toBe(`1.2.20261013 is no longer at ${setup.target} (merged)`);
  });

  it('show the nights that failed, and how the last one ended, in the list', async () => {
    const output = new ToldOutput();
    await runScheduleList(output);
    expect(output.lines.join('\n')).toMatch(/5 failed +unchanged 1\.2\.20261030/);
    expect(output.as<unknown[]>()).toMatchObject([
      { id: ID, missed: { overlap: 0, catchUp: 0, failed: 5 }, last: { state: 'unchanged' } },
    ]);
  });
});
