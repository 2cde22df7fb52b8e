import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MANIFEST_FILE } from '../../engine/manifest.ts';

/** What is handed to a publisher; `files` and the manifest are in `source`. */
export interface PublisherInput {
  readonly source: string;
  readonly files: readonly string[];
  readonly manifestFile: string;
  readonly artefact: string;
  readonly manifestDigest: string;
  readonly texts: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly onFile: (path: string) => void;
}

/** One target, fresh for each test. */
export interface PublisherUnderTest {
  publish(input: PublisherInput): Promise<{ location: string; existed: boolean }>;
  /** Files of a published artefact by name; undefined where nothing is published by that name. */
  read(artefact: string): Promise<ReadonlyMap<string, Buffer> | undefined>;
  /** Everything that is at the target, published or not. */
  list(): Promise<readonly string[]>;
  cleanUp(): Promise<void>;
}

const ARTEFACT = 'merged-tiny-1.0.0-adapter-tone-3';
const WEIGHTS = randomBytes(300_000);

/**
 * What every publisher must do.
 * @param open makes an empty target
 */
export function testPublisher(name: string, open: () => Promise<PublisherUnderTest>): void {
  describe(`${name} as a publisher`, () => {
    let directory: string;
    let target: PublisherUnderTest;
    beforeEach(async () => {
      directory = await mkdtemp(join(tmpdir(), 'weldline-publisher-'));
      target = await open();
    });
    afterEach(async () => {
      await target.cleanUp();
      await rm(directory, { recursive: true, force: true });
    });

    /** A sealed merge whose manifest says `content`. */
    async function sealedMerge(content = 'one'): Promise<PublisherInput> {
      const source = join(directory, content);
      await mkdir(source, { recursive: true });
      await writeFile(join(source, 'model.safetensors'), WEIGHTS);
      await writeFile(join(source, 'config.json'), '{}');
      await writeFile(join(source, MANIFEST_FILE), content);
      const manifestDigest = Buffer.from(content.padEnd(32, '.')).toString('hex');
      const release = JSON.stringify({ manifestDigest });
      return {
        source,
        files: ['config.json', 'model.safetensors'],
        manifestFile: MANIFEST_FILE,
        artefact: ARTEFACT,
        manifestDigest,
        texts: { 'README.md': '# A model', 'release.json': release },
        signal: new AbortController().signal,
        onFile: () => undefined,
      };
    }

    async function expectPublished(input: PublisherInput, manifest: string): Promise<void> {
      const files = await target.read(input.artefact);
      const expected = { ...input.texts, 'config.json': '{}', [MANIFEST_FILE]: manifest };
      expect([...(files?.keys() ?? [])].sort()).toEqual(
        [...Object.keys(expected), 'model.safetensors'].sort(),
      );
      for (const [path, text] of Object.entries(expected)) {
        expect(files?.get(path)?.toString('utf8'), path).toBe(text);
      }
      expect(files?.get('model.safetensors')?.equals(WEIGHTS)).toBe(true);
    }

    it('publishes every file, the manifest and the texts', async () => {
      const input = await sealedMerge();
      const named: string[] = [];
      const result = await target.publish({ ...input, onFile: (path) => named.push(path) });
      expect(result.existed).toBe(false);
      expect(result.location).toContain(ARTEFACT);
      expect(named).toEqual([...input.files, MANIFEST_FILE]);
      await expectPublished(input, 'one');
    });

    it('leaves the same release as it is when it is published again', async () => {
      const input = await sealedMerge();
      const first = await target.publish(input);
      const texts = { ...input.texts, 'README.md': '# Another text' };
      const again = await target.publish({ ...input, texts });
      expect(again).toEqual({ location: first.location, existed: true });
      await expectPublished(input, 'one');
    });

    it('refuses another release under the same name and leaves the first', async () => {
      const input = await sealedMerge();
      const { location } = await target.publish(input);
      const refused = target.publish(await sealedMerge('two'));
      await expect(refused).rejects.toMatchObject({ code: 'publish.conflict' });
      await expect(refused).rejects.toThrow(location);
      await expectPublished(input, 'one');
    });

    it('publishes other artefacts side by side, also where one name begins with the other', async () => {
      const input = await sealedMerge();
      const names = [ARTEFACT, `${ARTEFACT}.1`, `${ARTEFACT}-rc`];
      await Promise.all(names.map((artefact) => target.publish({ ...input, artefact })));
      for (const artefact of names) await expectPublished({ ...input, artefact }, 'one');
      expect([...(await target.list())].sort()).toEqual([...names].sort());
    });

    it('publishes nothing when it is cancelled, and everything when it is tried again', async () => {
      const input = await sealedMerge();
      for (const stopAt of [...input.files, MANIFEST_FILE]) {
        const controller = new AbortController();
        const onFile = (path: string): void => {
          if (path === stopAt) controller.abort(new Error('stop'));
        };
        const signal = controller.signal;
        const attempt = target.publish({ ...input, signal, onFile });
        if (stopAt === MANIFEST_FILE) await attempt.catch(() => undefined);
        else await expect(attempt).rejects.toThrow('stop');
        if (stopAt !== MANIFEST_FILE) expect(await target.read(ARTEFACT)).toBeUndefined();
      }
      await target.publish(input);
      await expectPublished(input, 'one');
      expect(await target.list()).toEqual([ARTEFACT]);
    });

    it('survives attempts that overlap', async () => {
      const input = await sealedMerge();
      const attempts = await Promise.allSettled(
        Array.from({ length: 8 }, () => target.publish(input)),
      );
      // One that was overtaken may fail; whoever tries last must find it published or do it.
      const { existed } = await target.publish(input);
      expect(existed || attempts.every(({ status }) => status === 'rejected')).toBe(true);
      await expectPublished(input, 'one');
      expect(await target.list()).toEqual([ARTEFACT]);
    });

    it('says that a file of the source is missing', async () => {
      const input = await sealedMerge();
      await rm(join(input.source, 'config.json'));
      await expect(target.publish(input)).rejects.toMatchObject({ name: 'WeldlineError' });
      expect(await target.read(ARTEFACT)).toBeUndefined();
    });
  });
}
