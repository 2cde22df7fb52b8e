import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { promote, rollBack } from '../../publishers/alias-moves.ts';
import { DirectoryPublisher } from '../../publishers/directory/directory-publisher.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { testArtefact } from '../harness/test-artefact.ts';

const signal = new AbortController().signal;
const RELEASES = ['merged-a', 'merged-b', 'merged-c'] as const;
const [FIRST, SECOND, THIRD] = RELEASES;

async function published(): Promise<DirectoryPublisher> {
  const directory = await temporaryDirectory();
  const publisher = new DirectoryPublisher(join(directory, 'out'));
  for (const release of RELEASES) {
    const artefact = await testArtefact(directory, { release });
    await publisher.publish(artefact, { signal, onProgress: () => undefined, publishedAt: [] });
  }
  return publisher;
}

describe('moving an alias', () => {
  it('goes from release to release and all the way back', async () => {
    const publisher = await published();
    const to = (release: string) => promote(publisher, { release }, 'latest', signal);
    const back = (from: string) =>
      rollBack(publisher, { alias: 'latest' }, (release) => release === from, signal);
    const alias = 'latest';
    expect(await to(FIRST)).toEqual({ alias, to: FIRST, isMoved: true });
    expect(await to(SECOND)).toEqual({ alias, from: FIRST, to: SECOND, isMoved: true });
    expect(await to(SECOND)).toEqual({ alias, from: SECOND, to: SECOND, isMoved: false });
    await to(THIRD);
    expect(await back(THIRD)).toEqual({ alias, from: THIRD, to: SECOND, isMoved: true });
    // The second time it does not go on back.
    expect(await back(THIRD)).toEqual({ alias, from: SECOND, to: SECOND, isMoved: false });
    expect(await back(SECOND)).toEqual({ alias, from: SECOND, to: FIRST, isMoved: true });
    const last = back(FIRST);
    await expect(last).rejects.toMatchObject({ code: 'publish.not-found' });
    await expect(last).rejects.toThrow(`it points at ${FIRST} and pointed at nothing before`);
    expect(await publisher.readAlias('latest', undefined)).toEqual({ release: FIRST, history: [] });
  });

  it('does not go back to what is gone or pruned', async () => {
    const publisher = await published();
    await promote(publisher, { release: FIRST }, 'latest', signal);
    await promote(publisher, { release: SECOND }, 'latest', signal);
    const back = () => rollBack(publisher, { alias: 'latest' }, () => true, signal);
    await publisher.prune({ release: FIRST }, { isDryRun: false });
    await expect(back()).rejects.toThrow(`${FIRST}, where it pointed before ${SECOND}, was pruned`);
    await rm(join(publisher.name, FIRST), { recursive: true });
    await expect(back()).rejects.toThrow('is not published any more');
    await expect(back()).rejects.toMatchObject({ code: 'publish.not-found' });
    const none = rollBack(publisher, { alias: 'none' }, () => true, signal);
    await expect(none).rejects.toThrow('there is no such alias');
    expect(await publisher.readAlias('latest', undefined)).toEqual({
      release: SECOND,
      history: [FIRST],
    });
  });

  it('remembers no more than anybody needs', async () => {
    const publisher = await published();
    for (let move = 0; move < 53; move++) {
      await promote(publisher, { release: RELEASES[move % 2]! }, 'latest', signal);
    }
    const state = await publisher.readAlias('latest', undefined);
    expect(state).toMatchObject({ release: FIRST });
    expect(state?.history).toHaveLength(50);
    expect(state?.history.at(-1)).toBe(SECOND);
  });
});
