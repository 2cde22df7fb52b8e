import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decidePrune } from '../../publishers/prune-policy.ts';
import type { AliasState, FoundArtefact } from '../../publishers/publisher.ts';

const NOW_MS = Date.parse('2026-06-01T00:00:00.000Z');
const DAY_MS = 86_400_000;

function artefact(release: string, ageDays: number, others: Partial<FoundArtefact> = {}) {
  const createdAt = new Date(NOW_MS - ageDays * DAY_MS).toISOString();
  const digests = { manifestDigest: '', planDigest: '' };
  const at = { location: release, pinned: release };
  return { release, ...at, ...digests, createdAt, isPruned: false, ...others };
}

function prunedOf(
  artefacts: readonly FoundArtefact[],
  aliases: readonly (AliasState & { part?: string })[],
  policy: { keep: number; keepDays?: number },
): readonly string[] {
  const decisions = decidePrune(artefacts, aliases, { ...policy, nowMs: NOW_MS });
  expect(decisions.map((each) => each.artefact)).toEqual(artefacts);
  return decisions.flatMap((each) => (each.isPruned ? [each.artefact.release] : []));
}

describe('the policy of pruning', () => {
  const five = [5, 1, 4, 2, 3].map((age) => artefact(`r${age}`, age));

  it('keeps the newest, whatever their order', () => {
    expect(prunedOf(five, [], { keep: 2 })).toEqual(['r5', 'r4', 'r3']);
    expect(prunedOf(five, [], { keep: 9 })).toEqual([]);
    expect(prunedOf([], [], { keep: 1 })).toEqual([]);
  });

  it('keeps the last one, even if none shall be kept', () => {
    expect(prunedOf(five, [], { keep: 0 })).toEqual(['r5', 'r4', 'r2', 'r3']);
  });

  it('keeps what is young', () => {
    expect(prunedOf(five, [], { keep: 1, keepDays: 3 })).toEqual(['r5', 'r4']);
  });

  it('keeps what an alias points at, and what it would be rolled back to', () => {
    const aliases = [{ release: 'r4', history: ['r3', 'r5'] }];
    expect(prunedOf(five, aliases, { keep: 1 })).toEqual(['r2', 'r3']);
    // A release that is aliased in one part stays with all of them.
    const ofPart = aliases.map((alias) => ({ ...alias, part: 'gguf-q4_k_m' }));
    expect(prunedOf(five, ofPart, { keep: 1 })).toEqual(['r2', 'r3']);
  });

  it('counts each part for itself, and not what is pruned already', () => {
    const parts = five.map((each) => ({
      ...each,
      part: 'gguf-q4_k_m',
      release: `${each.release}q`,
    }));
    expect(prunedOf([...five, ...parts], [], { keep: 4 })).toEqual(['r5', 'r5q']);
    const some = [artefact('r0', 0, { isPruned: true }), ...five];
    expect(prunedOf(some, [], { keep: 4 })).toEqual(['r5']);
  });

  it('keeps what has no date', () => {
    const undated = artefact('r9', 9, { createdAt: 'some day' });
    expect(prunedOf([...five, undated], [], { keep: 1 })).not.toContain('r9');
  });

  it('holds its promises for all releases, aliases and limits', () => {
    const part = fc.constantFrom(undefined, 'gguf-q4_k_m', 'awq');
    const found = fc.record({
      release: fc.constantFrom(...'abcdefgh'),
      part,
      age: fc.integer({ min: 0, max: 60 }),
      isPruned: fc.boolean(),
      isDated: fc.boolean(),
    });
    const releases = fc.constantFrom(...'abcdefgh');
    const alias = fc.record({ release: releases, history: fc.array(releases), part });
    const limits = fc.record({
      keep: fc.nat(5),
      keepDays: fc.option(fc.nat(60), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(found), fc.array(alias), limits, (all, aliases, policy) => {
        const unique = new Map(all.map((each) => [`${each.release} ${each.part}`, each]));
        const artefacts = [...unique.values()].map(({ release, part, age, isPruned, isDated }) =>
          artefact(release, age, {
            isPruned,
            ...(part && { part }),
            ...(isDated ? {} : { createdAt: '' }),
          }),
        );
        const named = aliases.map(({ part: own, ...each }) => ({
          ...each,
          ...(own && { part: own }),
        }));
        const decisions = decidePrune(artefacts, named, { ...policy, nowMs: NOW_MS });
        for (const { artefact: each, isPruned, kept } of decisions) {
          expect(isPruned).toBe(kept === undefined);
          if (!isPruned) continue;
          expect(each.isPruned).toBe(false);
          expect(named).not.toContainEqual(
            expect.objectContaining({ release: each.release, part: each.part }),
          );
          const others = decisions.filter(
            (other) =>
              other.artefact.part === each.part && !other.artefact.isPruned && !other.isPruned,
          );
          // Never the last one, and never one that is newer than so many that stay.
          expect(others.length).toBeGreaterThanOrEqual(Math.max(1, policy.keep));
          const newer = others.filter(
            (other) => !(Date.parse(other.artefact.createdAt) < Date.parse(each.createdAt)),
          );
          expect(newer.length).toBeGreaterThanOrEqual(Math.max(1, policy.keep));
          const age = NOW_MS - Date.parse(each.createdAt);
          if (policy.keepDays !== undefined) expect(age).toBeGreaterThan(policy.keepDays * DAY_MS);
        }
      }),
    );
  });
});
