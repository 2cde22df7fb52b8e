import { execFile } from 'node:child_process';
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { run } from '../../tools/run.ts';
import { survivors } from './is-alive.ts';

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

  it('takes carriage returns for ends of lines, and shows no control characters', async () => {
    const lines: string[] = [];
    const script = String.raw`printf '1%%\r2%%\r\n\033[31mred\033[0m\tend \001\377\n'; exit 1`;
    const running = shell(script, { onLine: (line) => lines.push(line) });
    await expect(running).rejects.toThrow('\n  1%\n  2%\n  red  end \ufffd\ufffd');
    expect(lines.slice(0, 2)).toEqual(['1%', '2%']);
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

  it('bounds the memory that a line without end takes', async () => {
    const before = process.memoryUsage().rss;
    let longest = 0;
    await shell('head -c 300000000 /dev/zero', {
      onLine: (line) => {
        longest = Math.max(longest, line.length);
      },
    });
    expect(longest).toBe(1 << 20);
    expect(process.memoryUsage().rss - before).toBeLessThan(150e6);
  });

  it('names the signal that ended a program', async () => {
    await expect(shell('kill -15 $$')).rejects.toMatchObject({
      code: 'tool.failed',
      message: expect.stringContaining('was ended by SIGTERM'),
    });
  });

  it.each([
    [
      '(ulimit -v 200000; exec python3 -c "bytearray(1 << 30)")',
      /failed with exit code 1\. It ran out of memory: [\s\S]*\n {2}MemoryError$/,
    ],
    ['kill -9 $$', /was ended by SIGKILL\. The system may have run out of memory: end other/],
    ['sh -c "kill -9 \\$\\$"; exit $?', /failed with exit code 137\. The system may have run out/],
    ['echo "MemoryError" >&2; exit 1', /failed with exit code 1\. It ran out of memory/],
    ['echo "std::bad_alloc" >&2; kill -ABRT $$', /was ended by SIGABRT\. It ran out of memory/],
  ])('says of `%s` that memory may have run out', async (script, message) => {
    await expect(shell(script)).rejects.toMatchObject({
      code: 'tool.killed',
      message: expect.stringMatching(message),
    });
  });

  it('says that the disk is full when it is', async () => {
    await expect(shell('cat /etc/hostname >/dev/full')).rejects.toMatchObject({
      code: 'disk.full',
      message: expect.stringMatching(/The disk is full: .*\n {2}cat: .*No space left on device$/),
    });
  });

  it.each([
    'OSError: [Errno 28] No space left on device',
    'Error: ENOSPC: no space left on device, write',
    '[Errno 122] Disk quota exceeded',
  ])('says that the disk is full when the program says "%s"', async (text) => {
    await expect(shell(`echo "${text}" >&2; exit 1`)).rejects.toMatchObject({
      code: 'disk.full',
      message: expect.stringMatching(/The disk is full: free some space and resume\.\n {2}\S/),
    });
    expect(await shell(`echo "${text}"; exit 0`)).toContain(text);
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

  it('kills what does not stop when it is asked, with all that it started', async () => {
    const pids: number[] = [];
    const running = run({
      file: process.execPath,
      args: [
        '-e',
        `process.on('SIGTERM', () => {});
         const { pid } = require('child_process').spawn('sleep', ['60'], { stdio: 'inherit' });
         console.log([process.pid, process.ppid, pid].join('\\n'));
         setInterval(() => {}, 1000)`,
      ],
      env,
      stallTimeoutMs: 3000,
      onLine: (line) => pids.push(Number(line)),
    });
    await expect(running).rejects.toMatchObject({
      code: 'tool.stalled',
      message: expect.stringMatching(/printed nothing for 3 s and was stopped\.\n {2}\d+/),
    });
    expect(pids).toHaveLength(3);
    expect(await survivors(pids)).toEqual([]);
  });

  it('does not call it a stall while something is printed', async () => {
    const script = 'for i in 1 2 3 4 5 6 7 8; do sleep 0.5; printf .; done';
    expect(await shell(script, { stallTimeoutMs: 3000 })).toBe('........\n');
  });

  it('leaves nothing behind that a program has started, nor waits for it', async () => {
    const pids: number[] = [];
    const script = 'sleep 60 & echo $!; (trap "" TERM HUP; sleep 60 >/dev/null) & echo $!';
    await shell(script, { onLine: (line) => pids.push(Number(line)) });
    expect(pids).toHaveLength(2);
    expect(await survivors(pids)).toEqual([]);
  });

  it.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)(
    'ends programs when weldline dies by %s',
    async (signal) => {
      const program = new URL('../../tools/run.ts', import.meta.url).href;
      const script = 'trap "" TERM HUP INT; sleep 60 & echo $$ $PPID $!; sleep 60';
      const parent = execFile(process.execPath, [
        ...['--input-type=module', '--eval'],
        `import { run } from '${program}';
         await run({ file: '/bin/sh', args: ['-c', '${script}'], env: process.env,
                     onLine: (line) => process.stdout.write(line + '\\n') });`,
      ]);
      const line = await new Promise<string>((resolve) => parent.stdout?.once('data', resolve));
      const pids = line.trim().split(' ').map(Number);
      expect(pids).toHaveLength(3);
      parent.kill(signal);
      expect(await survivors(pids)).toEqual([]);
    },
  );

  it('is told when the leash itself is killed, and leaves nobody', async () => {
    const pids: number[] = [];
    const running = shell('echo $$; kill -9 $PPID; sleep 60', {
      onLine: (line) => pids.push(Number(line)),
    });
    await expect(running).rejects.toMatchObject({ code: 'tool.killed' });
    expect(await survivors(pids)).toEqual([]);
  });

  it('appends all output to a log, in a directory that it makes', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weldline-run-'));
    const logFile = join(directory, 'logs', 'tool.log');
    await shell('echo out; printf "1\\r2"; echo err >&2', { logFile });
    await expect(shell('echo again; exit 1', { logFile })).rejects.toThrow('exit code 1');
    const log = await readFile(logFile, 'utf8');
    expect(log.match(/^--- \d{4}-.* \/bin\/sh -c /gm)).toHaveLength(2);
    // What the two streams say in between comes in any order.
    for (const said of ['out\n', '1\r2', 'err\n']) expect(log).toContain(said);
    expect(log.trimEnd()).toMatch(/again$/);
    await rm(directory, { recursive: true });
  });

  it('says that a log cannot be written, before it starts anything', async () => {
    const lines: string[] = [];
    const logFile = '/dev/null/tool.log';
    const running = shell('echo started', { logFile, onLine: (line) => lines.push(line) });
    await expect(running).rejects.toMatchObject({
      code: 'disk.write-failed',
      message: expect.stringContaining(logFile),
    });
    expect(lines).toEqual([]);
  });

  it('stops the program and rejects when a line is not taken', async () => {
    const pids: number[] = [];
    const running = shell('echo $$; exec sleep 60', {
      onLine: (line) => {
        pids.push(Number(line));
        throw new Error('not this line');
      },
    });
    await expect(running).rejects.toThrow('not this line');
    expect(await survivors(pids)).toEqual([]);
  });

  it('does not start what is cancelled already', async () => {
    const reason = new Error('before');
    await expect(shell('exit 1', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
