import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { commandLineOf, identityOf, isRunning } from '../../workers/process-identity.ts';

describe('identityOf', () => {
  it('is the same for a process as long as it lives', async () => {
    const child = spawn('/bin/sleep', ['30']);
    await once(child, 'spawn');
    const pid = child.pid ?? 0;
    const identity = identityOf(pid);
    expect(identity).toEqual({ pid, start: expect.stringMatching(/.+/) });
    expect(identityOf(pid)).toEqual(identity);
    expect(commandLineOf(pid)).toContain('sleep 30');
    expect(identity && isRunning(identity)).toBe(true);

    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(identity && isRunning(identity)).toBe(false);
    expect(identityOf(pid)).toBeUndefined();
    expect(commandLineOf(pid)).toBe('');
  });

  it('does not take a zombie for a process', async () => {
    // The shell's child ends while the shell, its parent, has become a program that never reaps it.
    const shell = spawn('/bin/sh', ['-c', 'sleep 0.1 & echo $!; exec sleep 30']);
    const [line] = await once(shell.stdout, 'data');
    const pid = Number(String(line));
    await expect.poll(() => identityOf(pid), { timeout: 5000 }).toBeUndefined();
    expect(() => process.kill(pid, 0)).not.toThrow();
    shell.kill('SIGKILL');
  });

  it.each([0, -1, 1.5, Number.NaN, 2 ** 30])('knows no process %d', (pid) => {
    expect(identityOf(pid)).toBeUndefined();
  });
});
