/** `weldline promote`, `rollback` and `prune` at the targets of recipes. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { artefactName } from '../../config/artefact-name.ts';
import { DirectoryPublisher } from '../../publishers/directory/directory-publisher.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { type CommandResult, runCommand } from '../harness/command.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { closeServer, listen, originOf } from '../hub-server/listen.ts';

const PART = 'gguf-q4_k_m';
const WEIGHTS_BYTES = 200_000;
const VERSIONS = ['1.0.0', '1.1.0', '1.2.0'] as const;
const quietly = {
  signal: new AbortController().signal,
  onProgress: () => undefined,
  publishedAt: [],
};

let directory: string;
let variables: Record<string, string>;
/** The targets of the recipes. */
let first: string;
let second: string;

beforeEach(async () => {
  directory = await temporaryDirectory();
  [first, second] = [join(directory, 'first'), join(directory, 'second')];
  variables = {
    WELDLINE_HOME: join(directory, 'home'),
    HF_HOME: join(directory, 'hub'),
    // There are many commands here, and most of their time is the compilation of zod.
    NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? '',
  };
});

const weldline = (...args: string[]): Promise<CommandResult> => runCommand(args, { variables });

async function json(...args: string[]): Promise<{ status: number | null; value: never }> {
  const { status, stdout, stderr } = await weldline(...args, '--json');
  expect(stdout, stderr).toMatch(/^\{/);
  return { status, value: JSON.parse(stdout) as never };
}

const releaseOf = (version: string): string =>
  artefactName({ base: './tiny', version, adapter: 'tone', adapterDigest: '0123456789abcdef' });

async function recipeOf(version: string, name = 'tiny'): Promise<string> {
  const path = join(directory, `${name}-${version}.yaml`);
  const text = `
name: ${name}
version: ${version}
base: { model: ./tiny }
adapters: [{ id: tone, model: ./tone }]
publish:
  - directory: { path: ${first} }
  - directory: { path: ${second} }
`;
  await writeFile(path, text);
  return path;
}

/** Publishes releases with a conversion each, one a day, at both targets. */
async function publish(...versions: readonly string[]): Promise<void> {
  for (const [day, version] of versions.entries()) {
    for (const part of [undefined, PART]) {
      const id = { release: releaseOf(version), ...(part && { part }) };
      const createdAt = `2026-01-0${day + 1}T00:00:00.000Z`;
      const weights = randomBytes(WEIGHTS_BYTES);
      const artefact = await testArtefact(directory, id, { createdAt, weights });
      for (const target of [first, second]) {
        await new DirectoryPublisher(target).publish(artefact, quietly);
      }
    }
  }
}

const linkAt = (target: string, name = 'production') => readlink(join(target, name));

describe('promote and rollback', () => {
  it('move all parts at all targets, by recipe, and back', async () => {
    await publish(...VERSIONS);
    const [one, two] = [await recipeOf('1.0.0'), await recipeOf('1.1.0')];
    const promoted = await weldline('promote', one, 'production');
    expect(promoted).toMatchObject({ status: 0, stderr: '' });
    const text = `${first}: production of ${PART} is ${releaseOf('1.0.0')}\n`;
    expect(promoted.stdout).toContain(text);
    for (const target of [first, second]) {
      expect(await linkAt(target)).toBe(releaseOf('1.0.0'));
      expect(await linkAt(target, `production-${PART}`)).toBe(`${releaseOf('1.0.0')}-${PART}`);
    }
    const { status, value } = await json('promote', two, 'production');
    expect(status).toBe(0);
    const change = { alias: 'production', from: releaseOf('1.0.0'), to: releaseOf('1.1.0') };
    expect(value).toMatchObject({ alias: 'production', release: 'tiny 1.1.0', failures: [] });
    expect(value).toHaveProperty('changes', [
      { target: first, ...change, isMoved: true },
      { target: first, ...change, part: PART, isMoved: true },
      { target: second, ...change, isMoved: true },
      { target: second, ...change, part: PART, isMoved: true },
    ]);
    const back = await weldline('rollback', two, 'production');
    expect(back).toMatchObject({ status: 0, stderr: '' });
    expect(await linkAt(second)).toBe(releaseOf('1.0.0'));
    // Once more has nothing to do, instead of going on back.
    const again = await weldline('rollback', two, 'production');
    expect(again.status).toBe(1);
    expect(again.stdout).toContain(`${first}: production stays ${releaseOf('1.0.0')}`);
    expect(again.stderr).toContain('nothing was rolled back');
    const nothing = await weldline('rollback', one, 'production');
    expect(nothing.status).toBe(1);
    expect(nothing.stderr).toContain('pointed at nothing before');
    expect(nothing.stderr).not.toMatch(/at .*\.ts:\d+/);
  });

  it('say which part stays behind, because the release has none', async () => {
    await publish('1.0.0');
    const publisher = new DirectoryPublisher(first);
    const next = { release: releaseOf('1.1.0') };
    await publisher.publish(await testArtefact(directory, next), quietly);
    const [one, two] = [await recipeOf('1.0.0'), await recipeOf('1.1.0')];
    await weldline('promote', one, 'latest', '--target', first);
    const { status, stderr } = await weldline('promote', two, 'latest', '--target', first);
    expect(status).toBe(0);
    const text = `latest of ${PART} stays ${releaseOf('1.0.0')}: tiny 1.1.0 has no such part there`;
    expect(stderr).toBe(`warning: ${first}: ${text}\n`);
    expect(await linkAt(first, 'latest')).toBe(next.release);
  });

  it('refuse to roll back parts that point at several releases of one version', async () => {
    await publish('1.0.0', '1.1.0');
    const one = await recipeOf('1.0.0');
    await weldline('promote', one, 'latest', '--target', first);
    await weldline('promote', await recipeOf('1.1.0'), 'latest', '--target', first);
    // Of the same version, with another adapter, and without the conversion.
    const digest = 'f'.repeat(16);
    const other = artefactName({
      base: './tiny',
      version: '1.1.0',
      adapter: 'tone',
      adapterDigest: digest,
    });
    const publisher = new DirectoryPublisher(first);
    await publisher.publish(await testArtefact(directory, { release: other }), quietly);
    await weldline('promote', join(first, other), 'latest');
    const back = await weldline('rollback', await recipeOf('1.1.0'), 'latest', '--target', first);
    expect(back.status).toBe(1);
    expect(back.stderr).toContain('Several releases');
    expect(await linkAt(first, 'latest')).toBe(other);
    expect(await linkAt(first, `latest-${PART}`)).toBe(`${releaseOf('1.1.0')}-${PART}`);
  });

  it('do what can be done where a target fails, and say what is left', async () => {
    await publish('1.0.0');
    await new DirectoryPublisher(first).withdraw({ release: releaseOf('1.0.0') });
    await new DirectoryPublisher(first).withdraw({ release: releaseOf('1.0.0'), part: PART });
    const recipe = await recipeOf('1.0.0');
    const { status, value } = await json('promote', recipe, 'latest');
    expect(status).toBe(1);
    expect(await linkAt(second, 'latest')).toBe(releaseOf('1.0.0'));
    expect(value).toMatchObject({ failures: [{ target: first, code: 'publish.not-found' }] });
    const left = `weldline promote ${recipe} latest --target ${first}`;
    expect(value).toHaveProperty('left', left);
    await publish('1.0.0').catch(() => undefined);
    const [, ...args] = left.split(' ');
    expect(await weldline(...args)).toMatchObject({ status: 0 });
    expect(await linkAt(first, 'latest')).toBe(releaseOf('1.0.0'));
  });

  it('take a place, a link to one, and the id of a release', async () => {
    await publish('1.0.0', '1.1.0');
    const place = join(first, `${releaseOf('1.0.0')}-${PART}`);
    expect(await weldline('promote', place, 'latest')).toMatchObject({ status: 0 });
    expect(await readdir(first)).toContain(`latest-${PART}`);
    expect(await readdir(first)).not.toContain('latest');
    expect(await weldline('promote', join(first, `latest-${PART}`), 'production')).toMatchObject({
      status: 0,
    });
    expect(await linkAt(first, `production-${PART}`)).toBe(`${releaseOf('1.0.0')}-${PART}`);

    const reports = join(directory, 'home', 'reports', 'release-tiny-1.1.0');
    await mkdir(reports, { recursive: true });
    const artefact = releaseOf('1.1.0');
    const publications = [{ location: join(second, artefact) }];
    const report = join(reports, 'report.json');
    await writeFile(report, JSON.stringify({ artefact, publications }));
    expect(await weldline('promote', 'tiny-1.1.0', 'latest')).toMatchObject({ status: 0 });
    expect(await linkAt(second, 'latest')).toBe(artefact);
    const targets = [{ directory: { path: first } }];
    await writeFile(report, JSON.stringify({ artefact, targets, publications }));
    expect(await weldline('promote', 'release-tiny-1.1.0', 'latest')).toMatchObject({ status: 0 });
    expect(await linkAt(first, 'latest')).toBe(artefact);
    await writeFile(report, '{');
    const damaged = await weldline('promote', 'tiny-1.1.0', 'latest');
    expect(damaged).toMatchObject({ status: 1, stderr: expect.stringContaining(report) });
  });

  it('refuse what names nothing, with what can be named', async () => {
    const recipe = await recipeOf('1.0.0');
    const cases: [string[], number, RegExp][] = [
      [['promote', recipe, 'Production'], 2, /is no alias/],
      [['promote', recipe, 'latest', '--target', '/elsewhere'], 2, /no target \/elsewhere/],
      [['promote', 'tiny-9', 'latest'], 1, /no report of a release tiny-9/],
      [['promote', './nowhere/merged', 'latest'], 1, /does not exist/],
      [['promote', 'ftp://x/y', 'latest'], 2, /no place of a published artefact/],
      [['rollback', recipe, 'latest'], 1, /no alias latest at/],
      [['prune'], 2, /Name a recipe/],
      [['prune', recipe, '--keep', '0'], 2, /at least 1/],
      [['prune', recipe, '--keep', 'all'], 2, /must be a whole number/],
      [['prune', recipe, '--workspace'], 2, /--workspace takes/],
    ];
    const results = await Promise.all(cases.map(([args]) => weldline(...args)));
    for (const [index, [, status, message]] of cases.entries()) {
      const { status: ended, stdout, stderr } = results[index]!;
      expect({ ended, stdout }, stderr).toEqual({ ended: status, stdout: '' });
      expect(stderr).toMatch(message);
      expect(stderr).not.toMatch(/at .*\.ts:\d+|bug in weldline/);
    }
  });
});

describe('prune', () => {
  it('says what it would do, and then does it: old weights, at all targets, of this recipe', async () => {
    await publish(...VERSIONS);
    const recipe = await recipeOf('1.2.0');
    const rest = (version: string) => join(second, releaseOf(version));
    const dry = await json('prune', recipe, '--keep', '1');
    expect(dry).toMatchObject({ status: 0, value: { isDryRun: true, bytes: 8 * WEIGHTS_BYTES } });
    expect(await readdir(rest('1.0.0'))).toContain('model.safetensors');

    expect(await weldline('promote', await recipeOf('1.0.0'), 'production')).toMatchObject({
      status: 0,
    });
    const { stdout, status } = await weldline('prune', recipe, '--keep', '1', '--yes');
    expect(status).toBe(0);
    expect(stdout).toMatch(/keep +\S*1\.0\.0\S* +an alias points at it/);
    expect(stdout).toMatch(/pruned +\S*1\.1\.0\S* +200 kB/);
    expect(stdout).toMatch(/800 kB freed/);
    for (const version of ['1.0.0', '1.2.0']) {
      expect(await readdir(rest(version))).toContain('model.safetensors');
    }
    const pruned = await readdir(rest('1.1.0'));
    expect(pruned).not.toContain('model.safetensors');
    expect(pruned).toEqual(expect.arrayContaining(['adapters', 'README.md', 'release.json']));
    const adapter = join(rest('1.1.0'), 'adapters', 'tone', 'adapter_model.safetensors');
    expect((await readFile(adapter)).length).toBeGreaterThan(0);
    expect(await json('prune', recipe, '--keep', '1')).toMatchObject({ value: { bytes: 0 } });
  });

  it('keeps what a target points at by an alias that only refers to it, or prunes nothing', async () => {
    await publish(...VERSIONS);
    const release = releaseOf('1.0.0');
    const facts = { manifest_digest: 'aa', plan_digest: 'bb', created_at: '2026-01-01T00:00:00Z' };
    const all = Object.entries({ ...facts, model: 'support', release });
    const tags = all.map(([key, value]) => ({ key: `weldline.${key}`, value }));
    let isUp = false;
    // What MLflow answers to the two questions that are asked of it.
    const server = await listen(0, async (_, response, url) => {
      const model = { aliases: [{ alias: 'production', version: '1' }] };
      const answer = url.pathname.endsWith('registered-models/get')
        ? { registered_model: { name: 'support', ...model } }
        : { model_versions: [{ name: 'support', version: '1', tags }] };
      response.writeHead(isUp ? 200 : 401).end(JSON.stringify(answer));
    });
    try {
      const recipe = await recipeOf('2.0.0');
      const target = `  - mlflow: { model: support, tracking_uri: ${originOf(server)} }\n  - hub: { repo: a/b }\n`;
      await writeFile(recipe, (await readFile(recipe, 'utf8')) + target);
      const prune = () => weldline('prune', recipe, '--keep', '1', '--yes', '--target', first);
      const refused = await prune();
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      isUp = true;
      const { stdout } = await prune();
      expect(stdout).toMatch(/keep +\S*1\.0\.0\S* +an alias points at it/);
      expect(await readdir(join(first, release))).toContain('model.safetensors');
      expect(await readdir(join(first, releaseOf('1.1.0')))).not.toContain('model.safetensors');
    } finally {
      await closeServer(server);
    }
  });

  it('leaves the releases of other recipes alone', async () => {
    await publish(...VERSIONS);
    const recipe = await recipeOf('1.2.0', 'other');
    expect(await json('prune', recipe, '--keep', '1', '--yes')).toMatchObject({
      status: 0,
      value: { bytes: 0, pruned: [], kept: [] },
    });
  });

  it('goes on at the other targets where one fails', async () => {
    await publish(...VERSIONS);
    await rm(first, { recursive: true });
    await writeFile(first, 'no directory');
    const recipe = await recipeOf('1.2.0');
    const { status, value } = await json('prune', recipe, '--keep', '2', '--yes');
    expect(status).toBe(1);
    expect(value).toMatchObject({ failures: [{ target: first }], bytes: 2 * WEIGHTS_BYTES });
  });
});
