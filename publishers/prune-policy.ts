import type { AliasState, FoundArtefact } from './publisher.ts';

export interface PrunePolicy {
  /** Of each part the newest so many keep their weights; at least one. */
  readonly keep: number;
  /** What is younger keeps its weights too, days; undefined: age does not matter. */
  readonly keepDays?: number | undefined;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
}

/** What becomes of one artefact, and why. */
export interface PruneDecision {
  readonly artefact: FoundArtefact;
  readonly isPruned: boolean;
  /** Why its weights stay; absent where they go. */
  readonly kept?: 'aliased' | 'before-alias' | 'newest' | 'young' | 'pruned' | 'undated';
}

const DAY_MS = 86_400_000;

/**
 * Which artefacts of one recipe lose their weights. A release that an alias points at stays with all
 * its parts, and so does the one it pointed at before, or a rollback would find nothing; so do the
 * newest of each part.
 *
 * @param artefacts of one recipe at one target
 * @param aliases all of that target
 */
export function decidePrune(
  artefacts: readonly FoundArtefact[],
  aliases: readonly AliasState[],
  { keep, keepDays, nowMs }: PrunePolicy,
): readonly PruneDecision[] {
  const ages = new Map<string | undefined, FoundArtefact[]>();
  for (const artefact of [...artefacts].sort(newestFirst)) {
    // Weights that are gone do not count among those that are kept.
    if (artefact.isPruned) continue;
    ages.set(artefact.part, [...(ages.get(artefact.part) ?? []), artefact]);
  }
  const newest = new Set([...ages.values()].flatMap((all) => all.slice(0, Math.max(1, keep))));
  const youngMs = keepDays === undefined ? Infinity : nowMs - keepDays * DAY_MS;
  return artefacts.map((artefact) => {
    const { release, isPruned, createdAt } = artefact;
    const kept = (reason: NonNullable<PruneDecision['kept']>) =>
      ({ artefact, isPruned: false, kept: reason }) as const;
    if (isPruned) return kept('pruned');
    if (aliases.some((alias) => alias.release === release)) return kept('aliased');
    if (aliases.some(({ history }) => history.at(-1) === release)) return kept('before-alias');
    if (newest.has(artefact)) return kept('newest');
    const createdAtMs = Date.parse(createdAt);
    if (Number.isNaN(createdAtMs)) return kept('undated');
    return createdAtMs >= youngMs ? kept('young') : { artefact, isPruned: true };
  });
}

/** By age, then by name, then by part; what has no date counts as new. */
export function newestFirst(one: FoundArtefact, other: FoundArtefact): number {
  const [created, otherCreated] = [one, other].map(({ createdAt }) => {
    const createdAtMs = Date.parse(createdAt);
    return Number.isNaN(createdAtMs) ? Infinity : createdAtMs;
  }) as [number, number];
  if (created !== otherCreated) return otherCreated - created;
  if (one.release !== other.release) return one.release < other.release ? 1 : -1;
  return (one.part ?? '') < (other.part ?? '') ? -1 : 1;
}
