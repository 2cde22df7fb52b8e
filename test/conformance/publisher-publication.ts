import { rm, truncate, writeFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { type ArtefactFile, artefactNameOf, RELEASE_FILE } from '../../publishers/publisher.ts';
import { bytesOf, weightsOf } from '../harness/test-artefact.ts';
import { RELEASE, type Stage, signal } from './publisher-stage.ts';

/** How artefacts get there, and what is there when they do not. */
export function testPublication(stage: Stage): void {
  const holdsFiles = stage.traits.holds !== 'references';
  const isShown = (path: string) => stage.traits.shows?.(path) ?? true;

  it('publishes every file, and the release last', async () => {
    const artefact = await stage.artefact();
    const named: string[] = [];
    const published = await stage.publish(artefact, {
      onProgress: ({ item, bytesDone, bytesTotal }) => {
        if (named.at(-1) !== item) named.push(item);
        expect(bytesDone).toBeLessThanOrEqual(bytesTotal);
      },
    });
    expect(published).toMatchObject({ target: stage.publisher.kind, existed: false });
    expect(stage.publisher.holds).toBe(stage.traits.holds ?? 'files');
    await stage.expectPublished(artefact);
    const found = await stage.publisher.find(artefact, signal());
    expect([found?.location, found?.pinned]).toEqual([published.location, published.pinned]);
    if (!holdsFiles) return;
    expect(published.bytesSent).toBeGreaterThanOrEqual(weightsIn(artefact.files).size);
    const { shows = () => true } = stage.traits;
    const paths = artefact.files.map(({ path }) => path).filter(shows);
    expect(named).toEqual(expect.arrayContaining(paths));
    if (shows(RELEASE_FILE)) expect(named.at(-1)).toBe(RELEASE_FILE);
  });

  it('does nothing when the same is published again', async () => {
    const artefact = await stage.artefact();
    const first = await stage.publish(artefact);
    const again = await stage.publish(artefact);
    expect(again).toEqual({ ...first, existed: true, bytesSent: 0 });
    await stage.expectPublished(artefact);
  });

  it('refuses another artefact under the same version, names it and leaves it', async () => {
    const artefact = await stage.artefact();
    const { location } = await stage.publish(artefact);
    const { code, message } = await stage.errorOf(stage.publish(await stage.artefact()));
    expect(code).toBe('publish.conflict');
    expect(message).toContain(location);
    await stage.expectPublished(artefact);
  });

  it('says before a release whether it can be published', async () => {
    const artefact = await stage.artefact();
    const { planDigest } = artefact;
    await stage.publisher.check(stage.id(), planDigest, signal());
    await stage.expectInvisible(stage.id());
    const { location } = await stage.publish(artefact);
    await stage.publisher.check(stage.id(), planDigest, signal());
    await stage.publisher.check(stage.id(), undefined, signal());
    const other = stage.publisher.check(stage.id(), 'f'.repeat(64), signal());
    const { code, message } = await stage.errorOf(other);
    expect(code).toBe('publish.conflict');
    expect(message).toContain(location);
  });

  it('keeps artefacts apart whose names begin alike', async () => {
    const releases = [RELEASE, `${RELEASE}.1`, `${RELEASE}-rc`].map((name) => stage.id(name));
    const ids = [...releases, { release: RELEASE, part: 'gguf-q8_0' }];
    const artefacts = await Promise.all(ids.map((id) => stage.artefact(id)));
    await Promise.all(artefacts.map((artefact) => stage.publish(artefact)));
    for (const artefact of artefacts) await stage.expectPublished(artefact);
    const listed = await stage.publisher.list(signal());
    expect(listed.map(artefactNameOf).sort()).toEqual(ids.map(artefactNameOf).sort());
    for (const found of listed) {
      expect(found).toEqual(await stage.publisher.find(found, signal()));
    }
  });

  it('shows nothing while it is stopped at any file, and goes on when it is tried again', async () => {
    const artefact = await stage.artefact();
    for (const { path } of artefact.files) {
      const controller = new AbortController();
      const attempt = stage.publish(artefact, {
        signal: controller.signal,
        onProgress: ({ item }) => {
          if (item === path) controller.abort(new Error('stop'));
        },
      });
      // A target that takes no such file, or is past its last step, publishes.
      if (await attempt.then(() => true).catch((error: Error) => expectStop(error))) break;
      await stage.expectInvisible(artefact);
    }
    const { bytesSent, existed } = await stage.publish(artefact);
    await stage.expectPublished(artefact);
    // All that came before the release was there.
    const sentMax = existed ? 0 : bytesOf(artefact.files) - weightsIn(artefact.files).size;
    expect(bytesSent).toBeLessThanOrEqual(sentMax);
    expect(await stage.under.everything()).toHaveLength(1);
  });

  it('is not begun for a signal that has aborted', async () => {
    const reason = new Error('never mind');
    const attempt = stage.publish(await stage.artefact(), { signal: AbortSignal.abort(reason) });
    await expect(attempt).rejects.toBe(reason);
    await stage.expectInvisible(stage.id());
  });

  it('survives publications that overlap', async () => {
    const artefact = await stage.artefact();
    const attempts = await Promise.allSettled(
      Array.from({ length: 4 }, () => stage.publish(artefact)),
    );
    // One that was overtaken may fail; whoever tries last must find it published or do it.
    const { existed } = await stage.publish(artefact);
    expect(existed || attempts.every(({ status }) => status === 'rejected')).toBe(true);
    await stage.expectPublished(artefact);
    expect(await stage.under.everything()).toHaveLength(1);
  });

  it('keeps nothing of another artefact that was published half', async () => {
    const controller = new AbortController();
    const last = (await stage.artefact()).files
      .map(({ path }) => path)
      .filter(isShown)
      .at(-1);
    const half = stage.publish(await stage.artefact(), {
      signal: controller.signal,
      onProgress: ({ item }) => {
        if (item === last) controller.abort(new Error('stop'));
      },
    });
    if (await half.then(() => true).catch((error: Error) => expectStop(error))) return;
    const artefact = await stage.artefact();
    await stage.publish(artefact);
    await stage.expectPublished(artefact);
    expect(await stage.under.everything()).toHaveLength(1);
  });

  if (holdsFiles) testSources(stage);
  // References are set at once: there is nothing between upload and commit.
  if (holdsFiles) {
    it('goes on where a process was killed between upload and commit', async () => {
      const artefact = await stage.artefact();
      const { shows = () => true } = stage.traits;
      const last = artefact.files
        .map(({ path }) => path)
        .filter(shows)
        .at(-1);
      await stage.publishInChild(artefact, last);
      await stage.expectInvisible(artefact);
      const published = await stage.publishInChild(artefact);
      expect(published?.existed).toBe(false);
      if (shows(RELEASE_FILE)) {
        const sentMax = bytesOf(artefact.files) - weightsIn(artefact.files).size;
        expect(published?.bytesSent).toBeLessThanOrEqual(sentMax);
      }
      await stage.expectPublished(artefact);
      expect(await stage.under.everything()).toHaveLength(1);
    });
  }
}

/** Files that are not what the artefact says. */
function testSources(stage: Stage): void {
  const spoilt: [string, (file: ArtefactFile) => Promise<void>][] = [
    ['is missing', ({ source }) => rm(source)],
    ['is shorter', ({ source, size }) => truncate(source, size - 1)],
    ['has other bytes', ({ source, size }) => writeFile(source, Buffer.alloc(size, 'x'))],
  ];
  for (const [what, spoil] of spoilt) {
    it(`says that a file of the source ${what}, and shows nothing`, async () => {
      const { shows = () => true } = stage.traits;
      for (const path of ['config.json', weightsOf(stage.kind)].filter(shows)) {
        const artefact = await stage.artefact(stage.id(`${RELEASE}-${path.length}`));
        const file = artefact.files.find((each) => each.path === path)!;
        await spoil(file);
        const { message } = await stage.errorOf(stage.publish(artefact));
        expect(message).toContain(path);
        await stage.expectInvisible(artefact);
      }
    });
  }
}

function expectStop(error: Error): false {
  expect(error.message).toBe('stop');
  return false;
}

function weightsIn(files: readonly ArtefactFile[]): ArtefactFile {
  return files.reduce((largest, file) => (file.size > largest.size ? file : largest));
}
