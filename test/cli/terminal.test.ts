/** What a person sees: the command in a terminal, started by npm, with a keyboard. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { embeddedServerStatus } from '../../workers/embedded-server.ts';
import { type RunningCommand, startCommand } from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { type ReleaseSetup, setUpRelease, writeRecipe } from '../harness/release-setup.ts';

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));

/** Gives its command a terminal of its own, 80 columns wide, and passes on what is typed. */
const IN_TERMINAL = `
import fcntl, os, pty, struct, sys, termios
def read(fd):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    return os.read(fd, 1024)
status = pty.spawn(sys.argv[1:], read)
sys.exit(0 if status == 0 else 1)
`;

/** Start of the line, and nothing on it. */
const REDRAW = '\r\u001b[2K';

let root: string;
let setup: ReleaseSetup;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-terminal-'));
  setup = await setUpRelease(root, heavyModel({ layers: 4, shards: 2, extent: 2048, rank: 1536 }));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

function inTerminal(...args: string[]): Promise<RunningCommand> {
  return startCommand(args, {
    variables: { ...setup.variables, WELDLINE_THREADS: '1' },
    cwd: REPOSITORY,
    program: ['python3', '-c', IN_TERMINAL, 'npm', 'run', '--silent', 'weldline', '--'],
  });
}

describe('in a terminal', () => {
  it('a merge shows a bar with bytes, rate and time left, and removes it at the end', async () => {
    const output = join(root, 'merged');
    const args = ['--base', setup.base, '--adapter', setup.adapter, '--output', output];
    const running = await inTerminal('merge', ...args);
    const { status, stdout } = await running.ended;
    expect(status, stdout).toBe(0);
    const drawn = stdout.split(REDRAW);
    const bars = drawn.filter((line) =>
      /^merging {2}\[[#.]{24}\] {2}\d+% {2}.* of 67 MB/.test(line),
    );
    expect(bars.length).toBeGreaterThan(3);
    expect(bars.some((line) => /\[#+\.+\].*MB\/s.* left/.test(line))).toBe(true);
    for (const line of bars) expect(line.length).toBeLessThan(80);
    expect(drawn.at(-1)).toMatch(/^Merged 8 of 8 tensors/);
  });

  it('Ctrl-C stops a merge with one clear line', async () => {
    const output = join(root, 'stopped');
    const args = ['--base', setup.base, '--adapter', setup.adapter, '--output', output];
    const running = await inTerminal('merge', ...args);
    await running.hasWritten(/merging {2}\[/);
    running.child.stdin?.write('\u0003');
    const { stdout } = await running.ended;
    expect(stdout).toContain('Stopped. Run the same command to go on where it stopped.');
    expect(stdout).not.toMatch(/error|bug/);
    expect(await readdir(root)).not.toContain('stopped');
  });

  it('Ctrl-C stops a release, and its server with it', async () => {
    const running = await inTerminal('release', await writeRecipe(setup));
    await running.hasWritten(/merge.*\[/);
    running.child.stdin?.write('\u0003');
    const { stdout } = await running.ended;
    expect(stdout).toContain('Stopped. The same command, or weldline resume, goes on');
    expect(stdout).not.toMatch(/error|bug/);
    expect((await embeddedServerStatus(setup.home)).state).toBe('stopped');
  });
});
