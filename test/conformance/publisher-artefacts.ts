import { expect, it } from 'vitest';
import { artefactNameOf } from '../../publishers/publisher.ts';
import { isPrunable, PRUNED_FILE } from '../../publishers/release-record.ts';
import { bytesOf } from '../harness/test-artefact.ts';
import { RELEASE, type Stage, signal } from './publisher-stage.ts';

/** What becomes of artefacts that are published. */
export function testArtefacts(stage: Stage): void {
  it('finds and lists nothing at an empty target', async () => {
    await stage.expectInvisible(stage.id());
    expect(await stage.publisher.list(signal())).toEqual([]);
    expect(await stage.publisher.listAliases(signal())).toEqual([]);
  });

  it('takes back an artefact, leaves its neighbours, and can publish the version anew', async () => {
    const artefact = await stage.artefact();
    const neighbour = await stage.artefact(stage.id(`${RELEASE}.1`));
    await stage.publish(artefact);
    await stage.publish(neighbour);
    await stage.publisher.withdraw(stage.id(), signal());
    await stage.expectInvisible(stage.id());
    await stage.publisher.withdraw(stage.id(), signal());
    await stage.expectPublished(neighbour);
    expect(await stage.under.everything()).toHaveLength(1);
    const other = await stage.artefact();
    await stage.publish(other);
    await stage.expectPublished(other);
  });

  it('does not take back what an alias points at', async () => {
    const artefact = await stage.artefact();
    await stage.publish(artefact);
    const { part } = stage.id();
    const alias = { alias: 'production', part, to: RELEASE, from: undefined, history: [] };
    await stage.publisher.moveAlias(alias, signal());
    const { code, message } = await stage.errorOf(stage.publisher.withdraw(stage.id(), signal()));
    expect(code).toBe('publish.aliased');
    expect(message).toContain('production');
    await stage.expectPublished(artefact);
  });

  if (stage.traits.prunes === true) testPrune(stage);
  else {
    it('does not offer to prune', () => {
      expect(stage.publisher.prune).toBeUndefined();
    });
  }
}

function testPrune(stage: Stage): void {
  const prune = (isDryRun: boolean) =>
    stage.publisher.prune!(stage.id(), { signal: signal(), isDryRun });

  it('prunes weights, keeps adapters and documents, and publishes again what was pruned', async () => {
    const artefact = await stage.artefact();
    const neighbour = await stage.artefact(stage.id(`${RELEASE}-rc`));
    await stage.publish(artefact);
    await stage.publish(neighbour);
    const pruned = artefact.files.filter(({ path }) => isPrunable(path, stage.kind));
    expect(await prune(true)).toBe(bytesOf(pruned));
    await stage.expectPublished(artefact);

    expect(await prune(false)).toBe(bytesOf(pruned));
    expect(await prune(false)).toBe(0);
    const kept = artefact.files.filter((file) => !pruned.includes(file));
    expect(kept.map(({ path }) => path)).toContain('adapters/tone/adapter_model.safetensors');
    const seen = new Map(await stage.under.read(stage.id()));
    seen.delete(PRUNED_FILE);
    await stage.expectFiles({ ...artefact, files: kept }, seen);
    expect(await stage.publisher.find(stage.id(), signal())).toMatchObject({ isPruned: true });
    const listed = await stage.publisher.list(signal());
    expect(listed.map((found) => [artefactNameOf(found), found.isPruned]).sort()).toEqual(
      [
        [artefactNameOf(stage.id()), true],
        [artefactNameOf(neighbour), false],
      ].sort(),
    );
    await stage.expectPublished(neighbour);

    const again = await stage.publish(artefact);
    // Not a new version, which aliases would follow.
    expect(again).toMatchObject({ existed: true, bytesSent: bytesOf(pruned) });
    await stage.expectPublished(artefact);
  });

  it('does not prune what an alias points at, nor point an alias at what was pruned', async () => {
    const artefact = await stage.artefact();
    await stage.publish(artefact);
    const { part } = stage.id();
    const alias = { alias: 'production', part, to: RELEASE, from: undefined, history: [] };
    await stage.publisher.moveAlias(alias, signal());
    for (const isDryRun of [true, false]) {
      expect((await stage.errorOf(prune(isDryRun))).code).toBe('publish.aliased');
    }
    await stage.expectPublished(artefact);
    const other = stage.id(`${RELEASE}.2`);
    await stage.publish(await stage.artefact(other));
    await stage.publisher.prune!(other, { signal: signal(), isDryRun: false });
    const from = await stage.publisher.readAlias('production', part, signal());
    const move = { alias: 'production', part, to: other.release, from, history: [RELEASE] };
    const { code } = await stage.errorOf(stage.publisher.moveAlias(move, signal()));
    expect(code).toBe('publish.not-found');
  });

  it('says that nothing is there to be pruned', async () => {
    expect((await stage.errorOf(prune(true))).code).toBe('publish.not-found');
  });
}
