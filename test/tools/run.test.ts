import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { run } from '../../tools/run.ts';

const env = childVariables();
const shell = (script: string, options: Partial<Parameters<typeof run>[0]> = {}) =>
  run({ file: '/bin/sh', args: ['-c', script], env, ...options });

describe('run', () => {
  it('returns standard output and reports the lines of both streams', async () => {
    const lines: string[] = [];
    const stdout = await shell('echo out; echo err >&2; printf end', {
      onLine: (line) => lines.push(line),
    });
    expect(stdout).toBe('out\nend\n');
    expect(lines.sort()).toEqual(['end', 'err', 'out']);
  });

  it('runs with the given environment and directory only', async () => {
    const cwd = await realpath(await mkdtemp(join(tmpdir(), 'weldline-run-')));
    const stdout = await shell('echo "$A-$HOME-$(pwd)"', { env: { A: '1' }, cwd });
    expect(stdout).toBe(`1--${cwd}\n`);
    await rm(cwd, { recursive: true });
  });

  it('shows the last lines of a program that fails', async () => {
    await expect(shell('seq 1 100; echo boom >&2; exit 3')).rejects.toMatchObject({
      code: 'tool.failed',
      message: expect.stringMatching(/failed with exit code 3\.\n(.*\n){14}.*$/),
    });
    await expect(shell('echo boom >&2; exit 3')).rejects.toThrow('\n  boom');
  });

  it('bounds what it keeps of a program that prints without end', async () => {
    const stdout = await shell('yes 0123456789 | head -c 4000000');
    expect(stdout.length).toBeLessThan(1_100_000);
  });

  it('names the signal that ended a program', async () => {
    await expect(shell('kill -9 $$')).rejects.toThrow('was ended by SIGKILL');
  });

  it('says that a program does not exist or is not executable', async () => {
    for (const file of ['/nonexistent/tool', 'no-such-tool-anywhere', '/etc/passwd']) {
      await expect(run({ file, args: [], env })).rejects.toMatchObject({
        code: 'tool.not-found',
        message: expect.stringContaining(file),
      });
    }
  });

  it('ends a program that takes too long', async () => {
    await expect(shell('exec sleep 30', { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'tool.failed',
      message: expect.stringContaining('took longer than 0.2 s'),
    });
  });

  it('ends a program when it is cancelled, and rejects with the reason', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    let pid = 0;
    const running = shell('echo $$; exec sleep 30', {
      signal: controller.signal,
      onLine: (line) => {
        pid = Number(line);
        controller.abort(reason);
      },
    });
    await expect(running).rejects.toBe(reason);
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });

  it('does not start what is cancelled already', async () => {
    const reason = new Error('before');
    await expect(shell('exit 1', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
