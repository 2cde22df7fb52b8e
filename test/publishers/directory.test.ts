import { spawnSync } from 'node:child_process';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { promote } from '../../publishers/alias-moves.ts';
import { DirectoryPublisher } from '../../publishers/directory/directory-publisher.ts';
import { type ArtefactId, artefactNameOf, RELEASE_FILE } from '../../publishers/publisher.ts';
import { RELEASE, signal, testPublisher } from '../conformance/publisher.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { testArtefact } from '../harness/test-artefact.ts';

/** The files below a directory, by path; undefined where there is none. */
async function readTree(directory: string): Promise<Map<string, Buffer> | undefined> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(
    () => undefined,
  );
  if (entries === undefined) return undefined;
  const files = new Map<string, Buffer>();
  for (const entry of entries) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(directory.length + 1), await readFile(path));
  }
  return files;
}

testPublisher(
  'a directory',
  async () => {
    const root = await mkdtemp(join(tmpdir(), 'weldline-target-'));
    const path = join(root, 'not', 'made', 'yet');
    return {
      publisher: new DirectoryPublisher(path),
      read: (id) => readTree(join(path, artefactNameOf(id))),
      readAlias: (alias, part) =>
        readTree(join(path, part === undefined ? alias : `${alias}-${part}`)),
      everything: async () => (await readdir(path)).filter((name) => name !== '.weldline'),
      child: { target: { directory: { path } }, env: {} },
      cleanUp: () => rm(root, { recursive: true, force: true }),
    };
  },
  { prunes: true },
);

const ID: ArtefactId = { release: RELEASE };
const quietly = { signal: signal(), onProgress: () => undefined, publishedAt: [] };

async function setUp() {
  const directory = await temporaryDirectory();
  const target = join(directory, 'out');
  const publisher = new DirectoryPublisher(target);
  const artefact = await testArtefact(directory, ID);
  return { directory, target, publisher, artefact, location: join(target, RELEASE) };
}

async function writeIn(directory: string, files: Readonly<Record<string, string>>): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
}

describe('publishing to a directory', () => {
  it('shares no file with its source, so that changing one leaves the other alone', async () => {
    const { publisher, artefact } = await setUp();
    const { location } = await publisher.publish(artefact, quietly);
    const weights = artefact.files.find(({ path }) => path === 'model.safetensors')!;
    const published = await stat(join(location, weights.path));
    expect(published.ino).not.toBe((await stat(weights.source)).ino);
    expect(published.nlink).toBe(1);
    expect((await stat(location)).mode & 0o777).toBe(0o777 & ~process.umask());
  });

  it('does not take a directory of somebody else for a release', async () => {
    const { publisher, artefact, location } = await setUp();
    for (const files of [{}, { 'notes.txt': 'mine' }, { [RELEASE_FILE]: '{"manifestDigest":' }]) {
      await rm(location, { recursive: true, force: true });
      await writeIn(location, files);
      const refused = publisher.publish(artefact, quietly);
      await expect(refused).rejects.toMatchObject({
        code: 'publish.conflict',
        message: expect.stringContaining('not a release of weldline'),
      });
      await expect(publisher.check(ID, undefined)).rejects.toMatchObject({
        code: 'publish.conflict',
      });
      await publisher.withdraw(ID);
      expect(await readdir(location)).toEqual(Object.keys(files));
      expect(await publisher.list()).toEqual([]);
    }
  });

  it('does not publish through a link, nor into one', async () => {
    const { publisher, artefact, directory, target, location } = await setUp();
    const other = join(directory, 'other');
    await new DirectoryPublisher(other).publish(artefact, quietly);
    await mkdir(target);
    await symlink(join(other, RELEASE), location);
    await expect(publisher.publish(artefact, quietly)).rejects.toMatchObject({
      code: 'publish.conflict',
    });
    expect(await publisher.find(ID)).toBeUndefined();
    await publisher.withdraw(ID);
    expect(await readlink(location)).toBe(join(other, RELEASE));
  });

  it('waits for the volume where a link under the name leads nowhere', async () => {
    const { publisher, artefact, directory, target, location } = await setUp();
    await mkdir(target);
    await symlink(join(directory, 'volume'), location);
    await expect(publisher.publish(artefact, quietly)).rejects.toMatchObject({
      code: 'publish.not-writable',
      message: expect.stringContaining(`${location} is a link that leads nowhere`),
    });
    await rm(location);
    expect(await publisher.publish(artefact, quietly)).toMatchObject({ existed: false });
  });

  it('removes what killed attempts left, and nothing else', async () => {
    const { publisher, artefact, target } = await setUp();
    const kept = [`.${RELEASE}-rc.0123456789ab.partial`, `.${RELEASE}.1.0123456789ab.partial`];
    const left = [`.${RELEASE}.0123456789ab.partial`, `.${RELEASE}.ba9876543210.left`];
    for (const name of [...kept, `.${RELEASE}.x`, ...left, `.${RELEASE}.abcdefabcdef.partial`]) {
      await writeIn(join(target, name), { 'model.safetensors': 'half' });
    }
    const expected = [...kept, `.${RELEASE}.x`, RELEASE].sort();
    await publisher.publish(artefact, quietly);
    expect((await readdir(target)).sort()).toEqual(expected);
    await writeIn(join(target, left[0]!), { 'model.safetensors': 'half' });
    expect(await publisher.publish(artefact, quietly)).toMatchObject({ existed: true });
    expect((await readdir(target)).sort()).toEqual(expected);
  });

  it('never publishes the directory of an attempt that was overtaken', async () => {
    const { publisher, artefact, target } = await setUp();
    for (const { path } of artefact.files) {
      let overtaking: Promise<unknown> | undefined;
      const late = publisher.publish(artefact, {
        ...quietly,
        onProgress: ({ item }) => {
          if (item === path) overtaking ??= publisher.publish(artefact, quietly);
        },
      });
      await Promise.allSettled([late]);
      await overtaking;
      const files = await readTree(join(target, RELEASE));
      expect([...files!.keys()].sort()).toEqual(artefact.files.map((file) => file.path).sort());
      expect(await readdir(target)).toEqual([RELEASE]);
      await publisher.withdraw(ID);
    }
  });

  it('goes on with what an attempt at another artefact left, without its bytes', async () => {
    const { publisher, artefact, directory, target } = await setUp();
    const other = await testArtefact(directory, ID);
    const controller = new AbortController();
    const stopped = publisher.publish(other, {
      ...quietly,
      signal: controller.signal,
      onProgress: ({ item }) => item === RELEASE_FILE && controller.abort(new Error('stop')),
    });
    await expect(stopped).rejects.toThrow('stop');
    await publisher.publish(artefact, quietly);
    const files = await readTree(join(target, RELEASE));
    for (const { path, source } of artefact.files) {
      expect(files?.get(path)?.equals(await readFile(source)), path).toBe(true);
    }
  });

  it('copies where the volume differs', async () => {
    const { artefact, directory } = await setUp();
    // A volume that is not that of the temporary directory; every Linux has this one.
    const volume = await mkdtemp('/dev/shm/weldline-');
    try {
      const { location } = await new DirectoryPublisher(volume).publish(artefact, quietly);
      expect((await stat(volume)).dev).not.toBe((await stat(directory)).dev);
      const files = await readTree(location);
      expect(files?.size).toBe(artefact.files.length);
    } finally {
      await rm(volume, { recursive: true, force: true });
    }
  });
});

describe('checking a directory', () => {
  it('accepts what exists and what can be made', async () => {
    const directory = await temporaryDirectory();
    for (const path of [directory, join(directory, 'a', 'b', 'c')]) {
      await new DirectoryPublisher(path).check(ID, undefined);
    }
    expect(await readdir(directory)).toEqual([]);
  });

  it('refuses a file, and a place below a file', async () => {
    const directory = await temporaryDirectory();
    const file = join(directory, 'file');
    await writeFile(file, '');
    for (const target of [file, join(file, 'below'), join(file, 'far', 'below')]) {
      const checked = new DirectoryPublisher(target).check(ID, undefined);
      await expect(checked).rejects.toMatchObject({ code: 'publish.not-writable' });
    }
  });

  it('refuses a directory that this user may not write', async () => {
    const directory = await temporaryDirectory();
    const locked = join(directory, 'locked');
    await mkdir(locked);
    await chmod(locked, 0o555);
    // The superuser may write anywhere, so the check runs as somebody else where it is one.
    const isRoot = process.getuid?.() === 0;
    if (isRoot) await chmod(directory, 0o755);
    const module = new URL('../../publishers/directory/directory-publisher.ts', import.meta.url);
    const script = `
      import { DirectoryPublisher } from ${JSON.stringify(module.href)};
      if (${isRoot}) process.setuid(65534);
      await new DirectoryPublisher(${JSON.stringify(locked)}).check({ release: 'x' })
        .catch((error) => process.stdout.write(error.code));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect({ stdout, stderr }).toEqual({ stdout: 'publish.not-writable', stderr: '' });
  });
});

describe('aliases of a directory', () => {
  it('are links with relative targets, so that the directory can be moved', async () => {
    const { publisher, artefact, target } = await setUp();
    await publisher.publish(artefact, quietly);
    const move = { alias: 'production', to: RELEASE, from: undefined, history: [] };
    await publisher.moveAlias(move);
    expect(await readlink(join(target, 'production'))).toBe(RELEASE);
    expect((await readdir(target)).sort()).toEqual(['.weldline', RELEASE, 'production'].sort());
  });

  it('do not take the name of anything else', async () => {
    const { publisher, artefact, directory, target } = await setUp();
    const part = 'awq-w4a16-g128';
    await publisher.publish(artefact, quietly);
    await publisher.publish(await testArtefact(directory, { ...ID, part }), quietly);
    await writeIn(join(target, 'latest'), { 'notes.txt': 'mine' });
    const move = { to: RELEASE, from: undefined, history: [] };
    const taken = { code: 'publish.conflict', message: expect.stringContaining('latest') };
    await expect(publisher.moveAlias({ ...move, alias: 'latest' })).rejects.toMatchObject(taken);
    expect(await readdir(join(target, 'latest'))).toEqual(['notes.txt']);
    // `production` of the part has the same link as this one of the merged checkpoint.
    await publisher.moveAlias({ ...move, alias: `production-${part}` });
    const both = publisher.moveAlias({ ...move, alias: 'production', part });
    await expect(both).rejects.toMatchObject({ code: 'publish.conflict' });
    expect(await readlink(join(target, `production-${part}`))).toBe(RELEASE);
    expect(await publisher.readAlias('production', part)).toBeUndefined();
  });

  it('are put right when the process that moved one was killed before the link', async () => {
    const { publisher, artefact, directory, target } = await setUp();
    const next = await testArtefact(directory, { release: `${RELEASE}.1` });
    for (const each of [artefact, next]) await publisher.publish(each, quietly);
    const first = { alias: 'production', to: RELEASE, from: undefined, history: [] };
    await publisher.moveAlias(first);
    const records = join(target, '.weldline', 'aliases', 'production');
    const state = { release: next.release, history: [RELEASE] };
    const record = JSON.stringify({ alias: 'production', ...state });
    await writeFile(join(records, '000002.json'), record);
    // What was decided holds, and is not taken back or done twice.
    expect(await publisher.readAlias('production', undefined)).toEqual(state);
    await publisher.moveAlias({
      alias: 'production',
      to: next.release,
      from: state,
      history: [RELEASE],
    });
    expect(await readlink(join(target, 'production'))).toBe(next.release);
    expect(await readdir(records)).toEqual(['000001.json', '000002.json']);
  });

  it('lose no move, however many move one at once', async () => {
    const { publisher, artefact, directory, target } = await setUp();
    const releases = [RELEASE, `${RELEASE}.1`, `${RELEASE}.2`];
    await publisher.publish(artefact, quietly);
    for (const release of releases.slice(1)) {
      await publisher.publish(await testArtefact(directory, { release }), quietly);
    }
    let moves = 0;
    const mover = async (number: number): Promise<void> => {
      // One of its own, as another machine would have.
      const own = new DirectoryPublisher(target);
      for (let round = 0; round < 5; ) {
        const release = releases[(number + round) % releases.length]!;
        try {
          const { isMoved } = await promote(own, { release }, 'latest', signal());
          moves += isMoved ? 1 : 0;
          round += 1;
        } catch (error) {
          expect(error).toMatchObject({ code: 'publish.alias-moved' });
        }
      }
    };
    await Promise.all([0, 1, 2, 3].map(mover));
    const state = await publisher.readAlias('latest', undefined);
    expect(state?.history).toHaveLength(moves - 1);
    expect(await readlink(join(target, 'latest'))).toBe(state?.release);
  });

  it('keep what they point at, also if they are moved while that is pruned or taken back', async () => {
    const { publisher, artefact, location } = await setUp();
    await publisher.publish(artefact, quietly);
    const before = await readdir(location);
    const remove = [() => publisher.prune(ID, { isDryRun: false }), () => publisher.withdraw(ID)];
    for (const [index, removing] of remove.entries()) {
      const list = publisher.listAliases.bind(publisher);
      publisher.listAliases = async () => {
        publisher.listAliases = list;
        const aliases = await list();
        await promote(new DirectoryPublisher(publisher.name), ID, `alias-${index}`, signal());
        return index === 0 ? aliases : [];
      };
      await expect(removing()).rejects.toMatchObject({ code: 'publish.aliased' });
      expect(await readdir(location)).toEqual(before);
    }
  });

  it('say that a record is damaged, and which', async () => {
    const { publisher, artefact, target } = await setUp();
    await publisher.publish(artefact, quietly);
    const path = join(target, '.weldline', 'aliases', 'production', '000001.json');
    for (const text of ['', '{}', '{"alias":"production","release":"../..","history":[]}']) {
      await writeIn(dirname(path), { '000001.json': text });
      await expect(publisher.readAlias('production', undefined)).rejects.toMatchObject({
        code: 'publish.rejected',
        message: expect.stringContaining(path),
      });
    }
  });
});
