import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import {
  type SideProcess,
  type SideProcessOptions,
  startSideProcess,
} from '../../tools/side-process.ts';
import { survivors } from './is-alive.ts';

/** A program that answers by `kind`; it says which processes there are when it is ready. */
const PROGRAM = `
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
const say = (value) => process.stdout.write(JSON.stringify(value) + '\\n');
const child = spawn('sleep', ['60'], { stdio: 'ignore' });
console.error('loading');
say({ ready: true, pids: [process.pid, process.ppid, child.pid] });
for await (const line of createInterface({ input: process.stdin })) {
  const { id, kind, count = 0, text } = JSON.parse(line);
  if (kind === 'count') for (let n = 0; n < count; n++) say({ id, n });
  if (kind === 'long') say({ id, text: 'x'.repeat(count) });
  if (kind === 'error') { say({ id, error: text }); continue; }
  if (kind === 'garbage') { process.stdout.write(text + '\\n'); }
  if (kind === 'die') { console.error('Traceback: ' + text); process.exit(count); }
  if (kind === 'kill') process.kill(process.pid, 'SIGKILL');
  if (kind === 'hang') continue;
  if (kind === 'slow') for (let n = 0; n < count; n++) {
    await new Promise((resolve) => setTimeout(resolve, 150));
    process.stderr.write('.');
  }
  if (kind === 'stay') process.stdin.on('end', () => setInterval(() => {}, 1000));
  say({ id, done: true });
}
child.kill();
`;

let opened: SideProcess[] = [];
afterEach(async () => {
  await Promise.all(opened.map((side) => side.close()));
  opened = [];
});

async function start(
  program = PROGRAM,
  options: Partial<SideProcessOptions> = {},
): Promise<SideProcess> {
  const side = await startSideProcess({
    name: 'the counting program',
    file: process.execPath,
    args: ['--input-type=module', '--eval', program],
    env: childVariables(),
    ...options,
  });
  opened.push(side);
  return side;
}

async function ask(
  side: SideProcess,
  message: Record<string, unknown>,
  signal?: AbortSignal,
): Promise<Record<string, unknown>[]> {
  const replies: Record<string, unknown>[] = [];
  for await (const reply of side.request(message, signal)) replies.push(reply);
  return replies;
}

const pidsOf = (side: SideProcess) => side.hello['pids'] as number[];

describe('a side process', () => {
  it('answers requests one after the other, however they come', async () => {
    const side = await start();
    expect(side.hello).toMatchObject({ ready: true });
    const counts = [2, 0, 3];
    const all = await Promise.all(counts.map((count) => ask(side, { kind: 'count', count })));
    expect(all).toEqual([
      [
        { id: 1, n: 0 },
        { id: 1, n: 1 },
      ],
      [],
      [
        { id: 3, n: 0 },
        { id: 3, n: 1 },
        { id: 3, n: 2 },
      ],
    ]);
    await side.close();
    expect(await survivors(pidsOf(side))).toEqual([]);
  });

  it('takes long replies and many, without running ahead of who reads them', async () => {
    const side = await start();
    const [reply] = await ask(side, { kind: 'long', count: 20_000_000 });
    expect(reply?.['text']).toHaveLength(20_000_000);
    let seen = 0;
    for await (const { n } of side.request({ kind: 'count', count: 20_000 })) {
      expect(n).toBe(seen++);
      if (seen % 5000 === 0) await sleep(20);
    }
    expect(seen).toBe(20_000);
  });

  it('goes on after a request that fails, is left early or is cancelled', async () => {
    const side = await start();
    const failing = ask(side, { kind: 'error', text: 'prompt 3 is empty' });
    await expect(failing).rejects.toMatchObject({
      code: 'tool.failed',
      message: 'the counting program: prompt 3 is empty',
    });
    const traceback = `${'line\n'.repeat(30)}ValueError: bad`;
    await expect(ask(side, { kind: 'error', text: traceback })).rejects.toThrow(
      /^the counting program: (line\n {2}){14}ValueError: bad$/,
    );
    const text = 'RuntimeError: No space left on device';
    await expect(ask(side, { kind: 'error', text })).rejects.toMatchObject({ code: 'disk.full' });
    for await (const _ of side.request({ kind: 'count', count: 1000 })) break;
    const controller = new AbortController();
    const reason = new Error('enough');
    const slow = ask(side, { kind: 'slow', count: 3 }, controller.signal);
    await sleep(50);
    controller.abort(reason);
    await expect(slow).rejects.toBe(reason);
    await expect(ask(side, { kind: 'count' }, controller.signal)).rejects.toBe(reason);
    expect(await ask(side, { kind: 'count', count: 1 })).toHaveLength(1);
  });

  it.each([
    'Loading weights: 100%',
    '{"id": 1, "n": ',
    '[1]',
    'null',
    '{"id": 77}',
    '\u001b[31m\u0000\u0001',
  ])('refuses %j on standard output, and quotes it', async (text) => {
    const side = await start();
    const running = ask(side, { kind: 'garbage', text });
    await expect(running).rejects.toMatchObject({
      code: 'tool.failed',
      message: expect.stringMatching(
        /^the counting program printed what is no reply: ".*"\. It was stopped\.\n {2}loading/,
      ),
    });
    expect(await survivors(pidsOf(side))).toEqual([]);
    await expect(ask(side, { kind: 'count' })).rejects.toThrow('printed what is no reply');
  });

  it.each([
    [
      { kind: 'die', text: 'boom', count: 3 },
      'tool.failed',
      /failed with exit code 3\.[\s\S]*boom/,
    ],
    [{ kind: 'die', text: 'boom', count: 0 }, 'tool.failed', /ended before it was told to/],
    [{ kind: 'die', text: '[Errno 28] No space left on device', count: 1 }, 'disk.full', /free/],
    [{ kind: 'die', text: 'bad allocation: MemoryError', count: 1 }, 'tool.killed', /memory/],
    [{ kind: 'kill' }, 'tool.killed', /was ended by SIGKILL\. The system may have run out/],
  ])('rejects all requests when it ends: %j', async (message, code, text) => {
    const side = await start();
    const running = [message, { kind: 'count' }, { kind: 'count' }].map((it) => ask(side, it));
    for (const request of await Promise.allSettled(running)) {
      expect(request).toMatchObject({
        status: 'rejected',
        reason: { code, message: expect.stringMatching(text) },
      });
    }
    await expect(ask(side, { kind: 'count' })).rejects.toMatchObject({ code });
    expect(await survivors(pidsOf(side))).toEqual([]);
  });

  it('ends one that is silent for too long, but not one that prints or has nothing to do', async () => {
    const side = await start(PROGRAM, { stallTimeoutMs: 2500 });
    await sleep(3000);
    expect(await ask(side, { kind: 'slow', count: 20 })).toEqual([]);
    await expect(ask(side, { kind: 'hang' })).rejects.toMatchObject({
      code: 'tool.stalled',
      message: expect.stringContaining('printed nothing for 2.5 s and was stopped'),
    });
    expect(await survivors(pidsOf(side))).toEqual([]);
  });

  it('does not blame it for a reader that takes its time', async () => {
    const side = await start(PROGRAM, { stallTimeoutMs: 2000 });
    let seen = 0;
    for await (const _ of side.request({ kind: 'count', count: 100 })) {
      if (seen++ === 0) await sleep(4000);
    }
    expect(seen).toBe(100);
  });

  it.each([
    ['console.error("no model"); process.exit(2)', 'tool.failed', /exit code 2\.\n {2}no model/],
    ['setInterval(() => {}, 1000)', 'tool.stalled', /was not ready after 1 s and was stopped/],
    ['console.log("hello")', 'tool.failed', /printed what is no reply: "hello"/],
    ['console.log("{\\"ready\\": false}")', 'tool.failed', /printed what is no reply/],
  ])('fails to start: %s', async (program, code, message) => {
    const startTimeoutMs = code === 'tool.stalled' ? 1000 : 30_000;
    await expect(start(program, { startTimeoutMs })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it('says that there is no such program', async () => {
    await expect(start('', { file: '/nonexistent/python' })).rejects.toMatchObject({
      code: 'tool.not-found',
      message: expect.stringContaining('/nonexistent/python cannot be started (ENOENT)'),
    });
  });

  it('ends with its signal, while it starts and while it works', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const { signal } = controller;
    const starting = start('setInterval(() => {}, 1000)', { signal });
    const side = await start(PROGRAM, { signal });
    const running = ask(side, { kind: 'hang' });
    controller.abort(reason);
    for (const outcome of await Promise.allSettled([starting, running])) {
      expect(outcome).toEqual({ status: 'rejected', reason });
    }
    await expect(start(PROGRAM, { signal })).rejects.toBe(reason);
    expect(await survivors(pidsOf(side))).toEqual([]);
  });

  it('closes one that is busy at once, and one that stays after a while', async () => {
    const busy = await start();
    const running = ask(busy, { kind: 'hang' });
    await sleep(50);
    const outcomes = await Promise.allSettled([running, busy.close(), busy.close()]);
    expect(outcomes[0]).toMatchObject({
      status: 'rejected',
      reason: { code: 'tool.failed', message: 'the counting program was closed.' },
    });
    await expect(ask(busy, { kind: 'count' })).rejects.toThrow('was closed');

    const staying = await start();
    await ask(staying, { kind: 'stay' });
    await staying.close();
    expect(await survivors([...pidsOf(busy), ...pidsOf(staying)])).toEqual([]);
  });

  it('closes while replies wait to be taken', async () => {
    const side = await start();
    const reading = async () => {
      for await (const { n } of side.request({ kind: 'count', count: 100_000 })) {
        if (n !== 0) continue;
        await sleep(200);
        await side.close();
      }
    };
    await expect(reading()).rejects.toThrow('the counting program was closed');
    expect(await survivors(pidsOf(side))).toEqual([]);
  });

  it('logs both streams', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weldline-side-'));
    const logFile = join(directory, 'logs', 'side.log');
    const side = await start(PROGRAM, { logFile });
    await ask(side, { kind: 'count', count: 1 });
    await side.close();
    const log = await readFile(logFile, 'utf8');
    expect(log).toContain('loading\n');
    expect(log).toContain('{"id":1,"n":0}');
    await rm(directory, { recursive: true });
  });
});
