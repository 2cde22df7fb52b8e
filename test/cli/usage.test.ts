import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ENGINE_VERSION } from '../../engine/version.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { runCommand } from '../harness/command.ts';

const COMMANDS = [
  ...['release', 'status', 'list', 'resume', 'cancel', 'plan', 'merge', 'verify', 'worker'],
  ...['watch', 'logs', 'pause', 'retry'],
  ...['promote', 'rollback', 'prune'],
] as const;

describe('the command line', () => {
  it('shows its commands, examples and exit codes', async () => {
    const { status, stdout, stderr } = await runCommand(['--help']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
    expect(stdout).toMatch(/Exit status/);
  });

  it('knows its version', async () => {
    expect((await runCommand(['--version'])).stdout).toBe(`${ENGINE_VERSION}\n`);
  });

  it.each(COMMANDS)('%s has help', async (command) => {
    const { status, stdout } = await runCommand([command, '--help']);
    expect(status).toBe(0);
    expect(stdout).toContain(`Usage: weldline ${command}`);
    expect(stdout).toContain('--json');
  });

  it.each([
    [['--frobnicate']],
    [['frobnicate']],
    [['release']],
    [['release', 'recipe.yaml', '--frobnicate']],
    [['release', 'recipe.yaml', 'another.yaml']],
    [['list', 'something']],
    [['merge', '--base', 'b', '--adapter', 'a']],
    [['merge', '--base', 'b', '--adapter', 'a', '--output', 'o', '--dtype', 'float8']],
    [['merge', '--base', 'b', '--output', 'o']],
    [['merge', '--base', 'b', '--adapter', 'a', '--adapter', 'c', '--output', 'o']],
    [['merge', '--base', 'b', '--adapter', 'a', '--output', 'o', '--threads', '0']],
    [['merge', '--base', 'b', '--adapter', 'a', '--output', 'o', '--max-shard-size', '5 apples']],
    [['plan']],
    [['plan', 'recipe.yaml', '--base', 'b']],
  ])('refuses %j with exit code 2 and says what is wrong', async (args) => {
    const { status, stdout, stderr } = await runCommand(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/error: \S/);
    expect(stderr).not.toMatch(/bug in weldline|at .*\.ts:\d+/);
  });

  it('explains a slip in a recipe at its line and column', async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, 'recipe.yaml');
    await writeFile(
      path,
      'name: a\nversion: 1.0.0\nbase: { model: ./b }\nadapters:\n  - id: x\n    modle: ./a\n',
    );
    const { status, stderr } = await runCommand(['release', path]);
    expect(status).toBe(2);
    expect(stderr).toContain(`${path}:6:5`);
    expect(stderr).toContain('modle');
    expect(stderr).toContain('[recipe.invalid]');
    const json = await runCommand(['release', path, '--json']);
    expect(json).toMatchObject({ status: 2, stderr: '' });
    expect(JSON.parse(json.stdout)).toMatchObject({
      error: { code: 'recipe.invalid', message: expect.stringContaining(`${path}:6:5`) },
    });
  });

  it.each([
    [['release', 'missing.yaml'], 2, 'recipe.not-found'],
    [['plan', 'missing.yaml'], 2, 'recipe.not-found'],
    [['verify', 'missing'], 1, 'source.not-found'],
    [['merge', '--base', 'no', '--adapter', 'no', '--output', 'out'], 1, 'source.not-found'],
  ])('%j ends with %i and %s', async (args, status, code) => {
    const cwd = await temporaryDirectory();
    const options = { cwd, variables: { WELDLINE_HOME: join(cwd, 'home') } };
    const text = await runCommand(args, options);
    expect(text).toMatchObject({ status, stdout: '' });
    expect(text.stderr).toContain(`[${code}]`);
    const json = await runCommand([...args, '--json'], options);
    expect(json).toMatchObject({ status, stderr: '' });
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { code } });
  });

  it('refuses a wrong environment', async () => {
    const variables = { WELDLINE_THREADS: 'many' };
    const { status, stderr } = await runCommand(['list'], { variables });
    expect(status).toBe(2);
    expect(stderr).toContain('WELDLINE_THREADS');
  });
});
