import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Output } from '../../cli/output.ts';
import { runVerify, type VerifyCommand } from '../../cli/verify.ts';
import { type PublishedRelease, publishRelease } from '../audit/published-release.ts';
import { type CommandOptions, runCommand } from '../harness/command.ts';
import { startWebServer, type WebServer } from '../harness/web-server.ts';

let root: string;
let release: PublishedRelease;
let options: CommandOptions;
let server: WebServer;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-verify-'));
  release = await publishRelease(root);
  await writeFile(join(root, 'key.pub.pem'), release.publicKey);
  const variables = { WELDLINE_HOME: join(root, 'home'), HF_HOME: join(root, 'hf') };
  options = { variables, cwd: root };
  server = await startWebServer({ root });
});
afterAll(async () => {
  await server.close();
  await rm(root, { recursive: true, force: true });
});

describe('weldline verify', () => {
  it('tells every claim, and what was not checked', async () => {
    const args = ['verify', release.directory, '--key', 'key.pub.pem', '--base', 'tiny'];
    const { status, stdout, stderr } = await runCommand(args, options);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.match(/^\w+ +verified /gm)).toHaveLength(9);
    expect(stdout).toMatch(/^signature +verified +\d+ files are signed by the key/m);
    expect(stdout).toMatch(
      /intact, as far as it was checked\.\nIt is merged-tiny-1\.0\.0-adapter-tone-1\.\n$/,
    );
  });

  it('names what is wrong, and ends with 1', async () => {
    const copy = join(root, 'tampered');
    await cp(release.directory, copy, { recursive: true });
    const card = join(copy, 'README.md');
    await writeFile(card, (await readFile(card, 'utf8')).replace('card', 'Card'));
    const text = await runCommand(['verify', copy], options);
    expect(text.status).toBe(1);
    expect(text.stdout).toMatch(/^files +FAILED +not the file that was made: README\.md/m);
    expect(text.stderr).toContain('[verify.digest-mismatch]');
  });

  it.each<[VerifyCommand, string, string]>([
    [{ identity: 'me@example.com' }, 'cli.usage', '--issuer go together'],
    [{ key: 'key.pem', issuer: 'https://example.com' }, 'cli.usage', 'made in one way'],
    [{ trustRoot: 'root.json' }, 'cli.usage', 'goes with --identity'],
    [{ key: '/missing.pem' }, 'source.not-found', '/missing.pem'],
  ])('refuses %j', async (command, code, message) => {
    await expect(runVerify(release.directory, command, new Output(true))).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });
});

describe('weldline reproduce', () => {
  it('makes a release again from a URL, and compares', async () => {
    const target = `${server.origin}/${release.directory.split('/').at(-1)}`;
    const args = ['reproduce', target, '--base', 'tiny', '--threads', '1'];
    const { status, stdout, stderr } = await runCommand(args, options);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.match(/^equal {2}[0-9a-f]{64} {2}\S+$/gm)).toHaveLength(5);
    expect(stdout).toContain('is reproduced byte for byte');
  });
});

describe('models at a URL', () => {
  it('are merged as those in directories are', async () => {
    const models = ['--base', `${server.origin}/tiny`, '--adapter', `${server.origin}/a`];
    const merged = await runCommand(['merge', ...models, '--output', 'merged'], options);
    expect(merged).toMatchObject({ status: 0, stderr: '' });
    const [made, published] = await Promise.all(
      [join(root, 'merged'), release.directory].map(weightsIn),
    );
    expect(made).toEqual(published);
    const manifest = JSON.parse(await readFile(join(root, 'merged', 'weldline.json'), 'utf8'));
    expect(manifest.inputs).toMatchObject([
      { model: `${server.origin}/tiny` },
      { model: `${server.origin}/a` },
    ]);
  });

  it('are planned without being fetched', async () => {
    const args = ['plan', '--base', `${server.origin}/tiny`, '--adapter', 'a', '--json'];
    const planned = await runCommand(args, {
      ...options,
      variables: { WELDLINE_HOME: join(root, 'another-home') },
    });
    expect(planned).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(planned.stdout)).toMatchObject({ plan: expect.any(String) });
    const models = await readdir(join(root, 'another-home', 'cache', 'models')).catch(() => []);
    expect(models).toEqual([]);
  });
});

async function weightsIn(directory: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.safetensors'));
  const files = await Promise.all(names.map((name) => readFile(join(directory, name))));
  return new Map(names.map((name, index) => [name, files[index] ?? Buffer.alloc(0)]));
}
