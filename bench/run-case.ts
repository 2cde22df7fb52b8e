import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { formatBytes } from '../cli/format.ts';
import type { Case, CaseContext } from './cases.ts';
import { watchDisk } from './disk-activity.ts';
import { loadAverage } from './machine.ts';
import type { CacheState, Contestant, Measurement, Round } from './measurement.ts';
import { requireFreeSpace } from './model-data.ts';
import { type Eviction, NO_EVICTION, prepareCache } from './page-cache.ts';
import { shuffled } from './statistics.ts';
import { judge, type Verdict } from './verdict.ts';

/** All that the rounds of a case found. */
export interface CaseResult {
  readonly id: string;
  readonly title: string;
  readonly cache: CacheState;
  readonly loadBefore: number;
  readonly loadAfter: number;
  readonly verdicts: readonly Verdict[];
  readonly rounds: readonly Round[];
  /** Why contestants did not take part, or why their measurements do not count, by name. */
  readonly absent: Readonly<Record<string, string>>;
}

export interface CaseOptions {
  readonly rounds: number;
  readonly eviction: Eviction | undefined;
}

/** A merge and a copy beside it, or a sealed checkpoint and what is published of it. */
const OUTPUTS_PER_RUN = 2;

/**
 * Runs all contestants of a case, in another order in every round. One that fails is left out of
 * the results, with the reason; the others go on.
 */
export async function runCase(
  benchCase: Case,
  context: CaseContext,
  options: CaseOptions,
): Promise<CaseResult> {
  const { id, title, cache, checks } = benchCase;
  const absent: Record<string, string> = {};
  const attempt = async <T>(name: string, work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      context.signal.throwIfAborted();
      absent[name] = `it failed: ${error instanceof Error ? error.message : error}`;
      console.log(`${id}: ${name}: ${absent[name]}`);
      return undefined;
    }
  };
  const contestants = (await attempt(title, () => benchCase.contestants(context))) ?? [];
  for (const contestant of contestants) {
    const reason = reasonToMiss(contestant, cache, options.eviction);
    if (reason === undefined) {
      await attempt(contestant.name, async () => await contestant.prepare?.(context.signal));
    } else {
      absent[contestant.name] = reason;
      console.log(`${id}: ${contestant.name} is left out: ${reason}`);
    }
  }
  const loadBefore = loadAverage();
  const rounds: Record<string, Measurement>[] = [];
  for (let index = 0; index < options.rounds; index++) {
    const round: Record<string, Measurement> = {};
    for (const contestant of shuffled(contestants, Math.random)) {
      const { name } = contestant;
      if (name in absent) continue;
      const measurement = await attempt(name, () =>
        runOne(contestant, { ...context, ...options, cache: contestant.cache ?? cache }),
      );
      if (measurement === undefined) continue;
      round[name] = measurement;
      console.log(`${id} ${index + 1}/${options.rounds}: ${describe(name, measurement)}`);
    }
    rounds.push(round);
  }
  for (const round of rounds) for (const name of Object.keys(absent)) delete round[name];
  const verdicts = checks.map((check) => judge(check, rounds));
  return { id, title, cache, loadBefore, loadAfter: loadAverage(), verdicts, rounds, absent };
}

function reasonToMiss(
  contestant: Contestant,
  cache: CacheState,
  eviction: Eviction | undefined,
): string | undefined {
  if (contestant.missing !== undefined) return contestant.missing;
  const needsEviction = (contestant.cache ?? cache) === 'cold';
  return needsEviction && eviction === undefined ? NO_EVICTION : undefined;
}

interface RunOptions extends CaseContext, CaseOptions {
  readonly cache: CacheState;
}

async function runOne(contestant: Contestant, options: RunOptions): Promise<Measurement> {
  const { scratch, modelBytes, cache, eviction, signal } = options;
  const output = join(scratch, 'output');
  await rm(output, { recursive: true, force: true });
  await contestant.reset?.(signal);
  await requireFreeSpace(scratch, OUTPUTS_PER_RUN * modelBytes);
  await prepareCache(cache, contestant.inputs.filter(existsSync), eviction, signal);
  try {
    const stopWatching = watchDisk(scratch);
    const measurement = await contestant.run(output, signal);
    const disk = stopWatching();
    return disk === undefined ? measurement : { ...measurement, disk };
  } finally {
    await rm(output, { recursive: true, force: true });
  }
}

function describe(name: string, { seconds, peakMemoryBytes }: Measurement): string {
  const load = loadAverage().toFixed(1);
  return `${name}: ${seconds.toFixed(2)} s, ${formatBytes(peakMemoryBytes)}, load ${load}`;
}
