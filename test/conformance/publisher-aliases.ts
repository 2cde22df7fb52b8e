import { describe, expect, it } from 'vitest';
import type { AliasState, Artefact } from '../../publishers/publisher.ts';
import { RELEASE, type Stage, signal } from './publisher-stage.ts';

const FIRST = RELEASE;
const SECOND = `${RELEASE}.1`;
const THIRD = `${RELEASE}-rc`;
const ALIAS = 'production';

/** Names that move. */
export function testAliases(stage: Stage): void {
  describe('with aliases', () => {
    const artefacts = new Map<string, Artefact>();

    async function publish(...releases: readonly string[]): Promise<void> {
      for (const release of releases) {
        artefacts.set(release, await stage.artefact(stage.id(release)));
        await stage.publish(artefacts.get(release)!);
      }
    }

    const read = (alias = ALIAS, part = stage.id().part) =>
      stage.publisher.readAlias(alias, part, signal());

    /** By the rules of promote: the release before goes into the history. */
    function move(to: string, from: AliasState | undefined, alias = ALIAS): Promise<void> {
      const history = from === undefined ? [] : [...from.history, from.release];
      const { part } = stage.id();
      return stage.publisher.moveAlias({ alias, part, to, from, history }, signal());
    }

    async function expectAt(release: string, history: readonly string[]): Promise<void> {
      expect(await read()).toEqual({ release, history });
      const { readAlias } = stage.under;
      if (readAlias === undefined) return;
      const seen = await readAlias.call(stage.under, ALIAS, stage.id().part);
      await stage.expectFiles(artefacts.get(release)!, seen);
    }

    it('points an alias at one release after another, and back', async () => {
      await publish(FIRST, SECOND, THIRD);
      expect(await read()).toBeUndefined();
      await move(FIRST, undefined);
      await expectAt(FIRST, []);
      await move(SECOND, await read());
      await move(THIRD, await read());
      await expectAt(THIRD, [FIRST, SECOND]);
      const { part } = stage.id();
      const back = { alias: ALIAS, part, to: SECOND, from: await read(), history: [FIRST] };
      await stage.publisher.moveAlias(back, signal());
      await expectAt(SECOND, [FIRST]);
      for (const artefact of artefacts.values()) await stage.expectPublished(artefact);
      expect(await stage.publisher.list(signal())).toHaveLength(3);
    });

    it('refuses to move an alias that somebody else has moved', async () => {
      await publish(FIRST, THIRD);
      const stale = [
        undefined,
        { release: SECOND, history: [] },
        { release: FIRST, history: [SECOND] },
      ];
      await move(FIRST, undefined);
      for (const from of stale) {
        const { code, message } = await stage.errorOf(move(THIRD, from));
        expect([code, message]).toEqual(['publish.alias-moved', expect.stringContaining(ALIAS)]);
      }
      await expectAt(FIRST, []);
      const absent = await stage.errorOf(move(FIRST, { release: FIRST, history: [] }, 'latest'));
      expect(absent.code).toBe('publish.alias-moved');
      expect(await read('latest')).toBeUndefined();
    });

    it('does not point an alias at what is not published', async () => {
      await publish(FIRST);
      for (const release of ['merged-other-1.0.0-adapter-tone-3', `${FIRST}.12`]) {
        const { code, message } = await stage.errorOf(move(release, undefined));
        expect([code, message]).toEqual(['publish.not-found', expect.stringContaining(release)]);
      }
      expect(await read()).toBeUndefined();
    });

    it('lets one of several have it who move it at once', async () => {
      await publish(FIRST, SECOND, THIRD);
      await move(FIRST, undefined);
      const from = await read();
      const moves = await Promise.allSettled([SECOND, THIRD].map((to) => move(to, from)));
      const moved = moves.filter(({ status }) => status === 'fulfilled');
      for (const each of moves) {
        if (each.status === 'fulfilled') continue;
        expect(each.reason).toMatchObject({ code: 'publish.alias-moved' });
      }
      const now = await read();
      expect([SECOND, THIRD]).toContain(now?.release);
      await expectAt(now!.release, [FIRST]);
      if (stage.traits.aliasesRace !== true) expect(moved).toHaveLength(1);
    });

    it('keeps aliases apart, of parts too', async () => {
      await publish(FIRST, SECOND);
      const part = 'gguf-q8_0';
      await stage.publish(await stage.artefact({ release: SECOND, part }));
      await move(FIRST, undefined);
      await move(SECOND, undefined, 'prod');
      const ofPart = { alias: ALIAS, part, to: SECOND, from: undefined, history: [] };
      await stage.publisher.moveAlias(ofPart, signal());
      await expectAt(FIRST, []);
      expect(await read('prod')).toEqual({ release: SECOND, history: [] });
      expect(await read(ALIAS, part)).toEqual({ release: SECOND, history: [] });
      // The first release has no such part.
      const absent = { ...ofPart, to: FIRST, from: { release: SECOND, history: [] } };
      const { code } = await stage.errorOf(stage.publisher.moveAlias(absent, signal()));
      expect(code).toBe('publish.not-found');
      const own = stage.id().part;
      const all = await stage.publisher.listAliases(signal());
      const expected = [
        { alias: ALIAS, ...(own && { part: own }), release: FIRST, history: [] },
        { alias: ALIAS, part, release: SECOND, history: [] },
        { alias: 'prod', ...(own && { part: own }), release: SECOND, history: [] },
      ];
      expect(all).toHaveLength(expected.length);
      expect(all).toEqual(expect.arrayContaining(expected));
    });
  });
}
