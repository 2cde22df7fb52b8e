import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { findLeftovers, removeLeftover } from '../../activities/workspace-leftovers.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { type CommandResult, runCommand } from '../harness/command.ts';
import { SERVER_TIMEOUTS, ServerHome, withClient } from '../workers/server-home.ts';

vi.setConfig(SERVER_TIMEOUTS);

const DAY_MS = 86_400_000;
const BYTES = 64 * 1024;

function prune(home: string, ...args: string[]): Promise<CommandResult> {
  const cache = process.env['NODE_COMPILE_CACHE'] ?? '';
  const variables = { WELDLINE_HOME: home, NODE_COMPILE_CACHE: cache };
  return runCommand(['prune', '--workspace', ...args], { variables });
}

/** What is in a home after some releases, each last written so many days ago. */
async function fillHome(home: string): Promise<void> {
  const files: [string, number][] = [
    ['merges/old/plan.json', 60],
    ['merges/old/sealed/model.safetensors', 60],
    ['merges/old/staging/files/model-00001-of-00002.safetensors', 50],
    ['merges/new/sealed/model.safetensors', 3],
    ['conversions/gguf-q4_k_m-old/model.gguf', 40],
    ['conversions/gguf-q4_k_m-new/model.gguf', 3],
    ['evaluations/old/outcome.json', 40],
    ['evaluations/old/distributions/distributions.f32', 40],
    ['evaluations/new/distributions/distributions.f32', 3],
    ['evaluations/results/r.json', 90],
    ['evaluations/suites/s.json', 90],
    ['reports/release-a/report.json', 90],
    ['cache/workflow.js', 90],
    ['tools/llama/llama-cli', 90],
  ];
  for (const [path, days] of files) {
    const file = join(home, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, Buffer.alloc(BYTES, 1));
    const written = new Date(Date.now() - days * DAY_MS);
    for (let at = file; at !== home; at = dirname(at)) {
      await utimes(at, written, written);
    }
  }
  // Making a directory touched those above it.
  for (const path of [
    'merges/old',
    'conversions/gguf-q4_k_m-old',
    'evaluations/old/distributions',
  ]) {
    const written = new Date(Date.now() - 40 * DAY_MS);
    await utimes(join(home, path), written, written);
  }
}

describe('pruning the workspace', () => {
  it('removes old merges, conversions and distributions, and nothing else', async () => {
    const home = await temporaryDirectory();
    await fillHome(home);
    const before = await readdir(home, { recursive: true });
    const dry = await prune(home);
    expect(dry).toMatchObject({ status: 0, stderr: '' });
    expect(dry.stdout).toMatch(/merge +\S+ kB +\S+ +.*merges\/old/);
    expect(dry.stdout).toMatch(/would be freed; nothing was removed/);
    expect(await readdir(home, { recursive: true })).toEqual(before);

    const { status, stdout } = await prune(home, '--yes', '--json');
    expect(status).toBe(0);
    const gone = ['merges/old', 'conversions/gguf-q4_k_m-old', 'evaluations/old/distributions'];
    const { bytes, pruned } = JSON.parse(stdout) as { bytes: number; pruned: { path: string }[] };
    expect(pruned.map(({ path }) => path).sort()).toEqual(
      gone.map((path) => join(home, path)).sort(),
    );
    expect(bytes).toBeGreaterThanOrEqual(5 * BYTES);
    const after = await readdir(home, { recursive: true });
    const isGone = (path: string): boolean =>
      gone.some((place) => path === place || path.startsWith(`${place}/`));
    expect(after.sort()).toEqual(before.filter((path) => !isGone(path)).sort());

    expect((await prune(home, '--keep-days', '0')).stdout).toMatch(/merges\/new/);
    const again = await prune(home, '--yes');
    expect(again).toMatchObject({ status: 0, stdout: expect.stringContaining('0 B freed') });
  });

  it('finds nothing in a home that is not there', async () => {
    const home = join(await temporaryDirectory(), 'home');
    expect(await findLeftovers(home)).toEqual([]);
    expect(await prune(home)).toMatchObject({ status: 0, stdout: 'There is nothing to prune.\n' });
  });

  it('finds what a removal left that was cut off, however young it is', async () => {
    const home = await temporaryDirectory();
    const left = join(home, 'merges', '.removed-0123456789ab');
    await mkdir(left, { recursive: true });
    expect(await findLeftovers(home)).toMatchObject([{ path: left }]);
    expect(await prune(home, '--yes')).toMatchObject({ status: 0 });
    expect(await readdir(join(home, 'merges'))).toEqual([]);
  });

  it('says what cannot be removed', async () => {
    const home = await temporaryDirectory();
    const path = join(home, 'merges', 'gone');
    const removed = removeLeftover({ kind: 'merge', path, bytes: 0, writtenAtMs: 0 });
    await expect(removed).rejects.toMatchObject({ code: 'disk.write-failed' });
  });

  it('waits until no release needs the files, also one that nobody works on', async () => {
    const home = await ServerHome.create();
    try {
      await fillHome(home.path);
      const { address } = await home.acquire();
      await withClient(address, async ({ workflow }) => {
        const running = async () => (await workflow.count("ExecutionStatus = 'Running'")).count;
        const started = { taskQueue: 'nobody', workflowId: 'release-a-1.0.0' };
        const handle = await workflow.start('releaseModel', started);
        await expect.poll(running, { timeout: 60_000 }).toBe(1);
        const refused = await prune(home.path, '--yes');
        expect(refused).toMatchObject({ status: 1, stdout: '' });
        expect(refused.stderr).toMatch(/release-a-1\.0\.0 may need what is in the workspace/);
        expect(await readdir(join(home.path, 'merges'))).toEqual(['new', 'old']);

        await handle.terminate();
        await expect.poll(running, { timeout: 60_000 }).toBe(0);
        expect(await prune(home.path, '--yes')).toMatchObject({ status: 0 });
        expect(await readdir(join(home.path, 'merges'))).toEqual(['new']);
      });
    } finally {
      await home.remove();
    }
  });
});
