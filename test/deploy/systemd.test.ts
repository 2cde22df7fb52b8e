import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXIT } from '../../cli/exit-codes.ts';
import { ROLES } from '../../workers/roles.ts';
import { ROOT, readProject, readText, variablesRead } from './compose-project.ts';

const FOLDER = join(ROOT, 'deploy/systemd');
const UNITS = ['weldline-worker.service', 'weldline-worker@.service'];

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'weldline-systemd-'));
  cpSync(FOLDER, directory, { recursive: true });
  // Where weldline is installed there is nothing here.
  for (const unit of UNITS) {
    const text = readFileSync(join(directory, unit), 'utf8');
    writeFileSync(join(directory, unit), text.replace('/usr/local/bin/weldline', process.execPath));
  }
});
afterAll(() => rmSync(directory, { recursive: true }));

/** What systemd has to say of a unit. */
async function problemsOf(unit: string): Promise<string> {
  const verify = ['verify', '--man=no', join(directory, unit)];
  const result = await execa('systemd-analyze', verify, { all: true, reject: false });
  if (result.code === 'ENOENT') throw new Error('systemd-analyze is missing: install systemd');
  return result.all;
}

describe('systemd', () => {
  test.each(['weldline-worker.service', ...ROLES.map((role) => `weldline-worker@${role}.service`)])(
    'takes %s',
    async (unit) => {
      expect(await problemsOf(unit)).toBe('');
    },
  );

  test('would say what is wrong', async () => {
    const text = readFileSync(join(directory, UNITS[0] ?? ''), 'utf8');
    const unit = 'misspelt.service';
    writeFileSync(join(directory, unit), text.replace('TimeoutStopSec', 'TimeoutStop'));
    expect(await problemsOf(unit)).toContain('TimeoutStop');
  });
});

/** The settings of a unit, as they stand. */
const settingsOf = (unit: string): string[] =>
  readText(`deploy/systemd/${unit}`)
    .split('\n')
    .filter((line) => line.includes('=') && !line.startsWith('#'));

test('the two units differ in the role alone', () => {
  const [all = [], one = []] = UNITS.map(settingsOf);
  expect(one.filter((line) => !all.includes(line))).toEqual([
    'Description=weldline worker, role %i',
    'EnvironmentFile=-/etc/weldline/%i.env',
    'ExecStart=/usr/local/bin/weldline worker --role %i',
  ]);
  expect(all.filter((line) => !one.includes(line))).toEqual([
    'Description=weldline worker',
    'ExecStart=/usr/local/bin/weldline worker',
  ]);
});

test('a role whose name is wrong is not tried again', () => {
  expect(settingsOf(UNITS[1] ?? '')).toContain(`RestartPreventExitStatus=${EXIT.usage}`);
});

test('a worker is left the time that it takes to stop', () => {
  const [, force] = /shutdownForceTime: '(\d+)s'/.exec(readText('workers/main.ts')) ?? [];
  expect(Number(force)).toBe(60);
  for (const unit of UNITS) expect(settingsOf(unit)).toContain('TimeoutStopSec=75');
  const { services } = readProject();
  for (const [name, { stop_grace_period }] of Object.entries(services)) {
    if (name.startsWith('worker-')) expect(stop_grace_period, name).toBe('75s');
  }
});

test('what is set for one role is set for a role that there is', () => {
  const folders = readdirSync(FOLDER).filter((name) => name.endsWith('.service.d'));
  expect(folders).toEqual(['weldline-worker@gpu.service.d']);
  expect(ROLES).toContain('gpu');
  expect(readText('deploy/systemd/weldline-worker@.service')).toContain(ROLES.join(', '));
});

test('weldline reads every variable of worker.env', () => {
  const named = [...readText('deploy/systemd/worker.env.example').matchAll(/^#?([A-Z_]+)=/gm)].map(
    ([, name = '']) => name,
  );
  expect(named.length).toBeGreaterThan(5);
  const read = variablesRead();
  expect(named.filter((name) => !read.has(name))).toEqual([]);
});
