import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkTarget, publishToDirectory } from '../../publishers/directory.ts';
import { readFiles, writeFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

async function sealed(
  directory: string,
): Promise<Omit<Parameters<typeof publishToDirectory>[0], 'target'>> {
  const source = join(directory, 'sealed');
  const files = new Map([
    ['model.safetensors', encode('weights')],
    ['weldline.json', encode('manifest')],
  ]);
  await writeFiles(source, files);
  return {
    source,
    files: ['model.safetensors'],
    manifestFile: 'weldline.json',
    artefact: 'merged',
    manifestDigest: 'd'.repeat(64),
    texts: {
      'README.md': 'card',
      'release.json': JSON.stringify({ manifestDigest: 'd'.repeat(64) }),
    },
    signal: new AbortController().signal,
    onFile: () => undefined,
  };
}

describe('publishing to a directory', () => {
  it('shares no file with its source, so that changing one leaves the other alone', async () => {
    const directory = await temporaryDirectory();
    const input = await sealed(directory);
    const { location } = await publishToDirectory({ ...input, target: join(directory, 'out') });
    const [source, published] = await Promise.all(
      [input.source, location].map((root) => stat(join(root, 'model.safetensors'))),
    );
    expect(published?.ino).not.toBe(source?.ino);
    expect(published?.nlink).toBe(1);
    expect((await stat(location)).mode & 0o777).toBe(0o777 & ~process.umask());
  });

  it('does not take a directory of somebody else for a release', async () => {
    const directory = await temporaryDirectory();
    const input = await sealed(directory);
    const target = join(directory, 'out');
    for (const content of [new Map(), new Map([['notes.txt', encode('mine')]])]) {
      await rm(target, { recursive: true, force: true });
      await writeFiles(join(target, 'merged'), content);
      await expect(publishToDirectory({ ...input, target })).rejects.toMatchObject({
        code: 'publish.conflict',
        message: expect.stringContaining('not a release of weldline'),
      });
      expect(await readdir(join(target, 'merged'))).toEqual([...content.keys()]);
    }
  });

  it('takes a release whose record is damaged for another one', async () => {
    const directory = await temporaryDirectory();
    const input = await sealed(directory);
    const target = join(directory, 'out');
    await publishToDirectory({ ...input, target });
    await writeFile(join(target, 'merged', 'release.json'), '{"manifestDigest":');
    await expect(publishToDirectory({ ...input, target })).rejects.toMatchObject({
      code: 'publish.conflict',
    });
  });

  it('removes what killed attempts left, and nothing else', async () => {
    const directory = await temporaryDirectory();
    const input = await sealed(directory);
    const target = join(directory, 'out');
    const kept = [
      '.merged-other.0123456789ab.partial',
      '.merged.1.0123456789ab.partial',
      '.merged.x',
    ];
    const left = ['.merged.0123456789ab.partial', '.merged.ba9876543210.left'];
    for (const name of [...kept, ...left]) {
      await writeFiles(join(target, name), new Map([['model.safetensors', encode('half')]]));
    }
    await publishToDirectory({ ...input, target });
    expect((await readdir(target)).sort()).toEqual([...kept, 'merged'].sort());
  });

  it('never publishes the directory of an attempt that was overtaken', async () => {
    const directory = await temporaryDirectory();
    const input = await sealed(directory);
    const target = join(directory, 'out');
    let overtaken: Promise<unknown> | undefined;
    const late = publishToDirectory({
      ...input,
      target,
      onFile: (path) => {
        // The second attempt runs to its end before the first has linked its last file.
        if (path === 'weldline.json') overtaken ??= publishToDirectory({ ...input, target });
      },
    });
    await Promise.allSettled([late]);
    await overtaken;
    const files = await readFiles(join(target, 'merged'));
    expect([...files.keys()]).toEqual([
      'README.md',
      'model.safetensors',
      'release.json',
      'weldline.json',
    ]);
    expect(await readdir(target)).toEqual(['merged']);
  });

  it('copies where the volume differs', async () => {
    const directory = await temporaryDirectory();
    const input = await sealed(directory);
    // A volume that is not that of the temporary directory; every Linux has this one.
    const volume = await mkdtemp('/dev/shm/weldline-');
    try {
      const { location } = await publishToDirectory({ ...input, target: volume });
      expect((await stat(volume)).dev).not.toBe((await stat(directory)).dev);
      const files = await readFiles(location);
      expect(files.get('model.safetensors')?.toString()).toBe('weights');
      expect(files.get('weldline.json')?.toString()).toBe('manifest');
    } finally {
      await rm(volume, { recursive: true, force: true });
    }
  });
});

describe('checking a target', () => {
  it('accepts what exists and what can be made', async () => {
    const directory = await temporaryDirectory();
    await checkTarget(directory);
    await checkTarget(join(directory, 'a', 'b', 'c'));
    expect(await readdir(directory)).toEqual([]);
  });

  it('refuses a file, and a place below a file', async () => {
    const directory = await temporaryDirectory();
    const file = join(directory, 'file');
    await writeFile(file, '');
    for (const target of [file, join(file, 'below'), join(file, 'far', 'below')]) {
      await expect(checkTarget(target)).rejects.toMatchObject({ code: 'publish.not-writable' });
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
    const script = `
      import { checkTarget } from ${JSON.stringify(new URL('../../publishers/directory.ts', import.meta.url).href)};
      if (${isRoot}) process.setuid(65534);
      await checkTarget(${JSON.stringify(locked)}).catch((error) => process.stdout.write(error.code));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect({ stdout, stderr }).toEqual({ stdout: 'publish.not-writable', stderr: '' });
  });
});
