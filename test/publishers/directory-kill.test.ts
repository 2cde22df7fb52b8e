import { execFile } from 'node:child_process';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { DirectoryPublisher } from '../../publishers/directory/directory-publisher.ts';
import type { Artefact, ArtefactId } from '../../publishers/publisher.ts';
import { isPrunable, PRUNED_FILE } from '../../publishers/release-record.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { testArtefact } from '../harness/test-artefact.ts';

const CHILD = fileURLToPath(new URL('../harness/directory-child.ts', import.meta.url));
const ID: ArtefactId = { release: 'merged-tiny-1.0.0-adapter-tone-3' };
const quietly = {
  signal: new AbortController().signal,
  onProgress: () => undefined,
  publishedAt: [],
};

/** Runs an action up to a change of the file system; the number of all changes, if it ended. */
function runUntil(target: string, action: unknown[], change: number): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const args = [CHILD, target, JSON.stringify(action), String(change)];
    execFile(process.execPath, args, (error, stdout) => {
      if (error === null) resolve(Number(stdout));
      else if (error.signal === 'SIGKILL') resolve(undefined);
      else reject(error);
    });
  });
}

interface Stage {
  readonly target: string;
  readonly publisher: DirectoryPublisher;
  readonly artefact: Artefact;
}

/**
 * Kills an action before each of its changes, every time in a directory of its own.
 * @param prepare brings about what is there before
 * @param expectWhole what must hold after each kill, and then after it was done to the end
 */
async function killEverywhere(
  prepare: (stage: Stage) => Promise<unknown[]>,
  expectWhole: (stage: Stage) => Promise<void>,
): Promise<number> {
  const directory = await temporaryDirectory();
  const artefact = await testArtefact(directory, ID);
  const open = async (name: string) => {
    const target = join(directory, name);
    const stage = { target, publisher: new DirectoryPublisher(target), artefact };
    return { stage, action: await prepare(stage) };
  };
  const whole = await open('whole');
  const changes = await runUntil(whole.stage.target, whole.action, 0);
  await expectWhole(whole.stage);
  let next = 1;
  const killSome = async (): Promise<void> => {
    while (next <= changes!) {
      const change = next++;
      const { stage, action } = await open(`killed-${change}`);
      expect(await runUntil(stage.target, action, change)).toBeUndefined();
      await expectWhole(stage);
    }
  };
  await Promise.all([killSome(), killSome()]);
  return changes!;
}

async function filesOf(location: string): Promise<string[]> {
  const entries = await readdir(location, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => !entry.isDirectory());
  return files.map((entry) => join(entry.parentPath, entry.name).slice(location.length + 1)).sort();
}

async function expectEveryFile({ target, artefact }: Stage): Promise<void> {
  const location = join(target, ID.release);
  expect(await filesOf(location)).toEqual(artefact.files.map(({ path }) => path).sort());
  for (const { path, source } of artefact.files) {
    expect((await readFile(join(location, path))).equals(await readFile(source)), path).toBe(true);
  }
  expect(await readdir(target)).toEqual([ID.release]);
}

describe('a directory whose process is killed before any change', () => {
  it('holds the whole artefact or none, and is published by the next attempt', async () => {
    const changes = await killEverywhere(
      async ({ artefact }) => ['publish', artefact],
      async (stage) => {
        const found = await stage.publisher.find(ID);
        const seen = await filesOf(join(stage.target, ID.release)).catch(() => undefined);
        expect(seen?.length).toBe(found && stage.artefact.files.length);
        const again = await stage.publisher.publish(stage.artefact, quietly);
        expect(again.existed).toBe(found !== undefined);
        await expectEveryFile(stage);
      },
    );
    expect(changes).toBeGreaterThan(15);
  });

  it('says of a half pruned artefact that it is pruned, and prunes the rest', async () => {
    await killEverywhere(
      async ({ publisher, artefact }) => {
        await publisher.publish(artefact, quietly);
        return ['prune', ID];
      },
      async ({ publisher, artefact, target }) => {
        const lacking = await lackingFiles(target, artefact);
        const found = await publisher.find(ID);
        if (lacking.length > 0) expect(found?.isPruned).toBe(true);
        await publisher.prune(ID, { isDryRun: false });
        expect(await publisher.find(ID)).toMatchObject({ isPruned: true });
        const kept = artefact.files
          .map(({ path }) => path)
          .filter((path) => !isPrunable(path, 'merged'));
        expect(await filesOf(join(target, ID.release))).toEqual([...kept, PRUNED_FILE].sort());
        expect(await readdir(target)).toEqual([ID.release]);
      },
    );
  });

  it('says of a half restored artefact that it is pruned, and restores the rest', async () => {
    await killEverywhere(
      async ({ publisher, artefact }) => {
        await publisher.publish(artefact, quietly);
        await publisher.prune(ID, { isDryRun: false });
        return ['publish', artefact];
      },
      async (stage) => {
        const lacking = await lackingFiles(stage.target, stage.artefact);
        const found = await stage.publisher.find(ID);
        if (lacking.length > 0) expect(found?.isPruned).toBe(true);
        await stage.publisher.publish(stage.artefact, quietly);
        expect(await stage.publisher.find(ID)).toMatchObject({ isPruned: false });
        await expectEveryFile(stage);
      },
    );
  });

  it('has taken back an artefact or not, and never a part of it', async () => {
    await killEverywhere(
      async ({ publisher, artefact }) => {
        await publisher.publish(artefact, quietly);
        return ['withdraw', ID];
      },
      async (stage) => {
        if ((await stage.publisher.find(ID)) !== undefined) await expectEveryFile(stage);
        await stage.publisher.withdraw(ID);
        expect(await readdir(stage.target)).toEqual([]);
      },
    );
  });

  it('has an alias where it was or where it shall be, and moves it at the next attempt', async () => {
    const next = { release: `${ID.release}.1` };
    const from = { release: ID.release, history: [] };
    const move = { alias: 'production', to: next.release, from, history: [ID.release] };
    await killEverywhere(
      async ({ publisher, artefact, target }) => {
        await publisher.publish(artefact, quietly);
        await publisher.publish(await testArtefact(join(target, '..'), next), quietly);
        const first = { alias: 'production', to: ID.release, from: undefined, history: [] };
        await publisher.moveAlias(first);
        return ['moveAlias', move];
      },
      async ({ publisher, target }) => {
        const link = join(target, 'production');
        expect([ID.release, next.release]).toContain(await readlink(link));
        const state = await publisher.readAlias('production', undefined);
        expect([from, { release: next.release, history: [ID.release] }]).toContainEqual(state);
        await publisher.moveAlias({ ...move, from: state });
        expect((await readdir(target)).sort()).toEqual(
          ['.weldline', ID.release, next.release, 'production'].sort(),
        );
        expect(await readlink(link)).toBe(next.release);
        expect(await publisher.readAlias('production', undefined)).toEqual({
          release: next.release,
          history: [ID.release],
        });
      },
    );
  });
});

async function lackingFiles(target: string, { files }: Artefact): Promise<readonly string[]> {
  const present = await filesOf(join(target, ID.release));
  return files.map(({ path }) => path).filter((path) => !present.includes(path));
}
