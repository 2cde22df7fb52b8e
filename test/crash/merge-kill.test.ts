import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { digestFile } from '../../engine/durable-files.ts';
import { type Directories, mergeDirectories } from '../doubles/merge-directories.ts';
import { Random } from '../doubles/random.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { writeLargeModel } from './large-model.ts';

const CHILD = fileURLToPath(new URL('./merge-child.ts', import.meta.url));
const KILLS = 20;
/** Twenty starts of a process take 15 s here, and several times that on a busy machine. */
const TIMEOUT_MS = 300_000;
const LAYOUT = { tensors: 8, shards: 4 };

/** A shard holds two tensors of 8 MiB. */
const SHARD_BYTES_MIN = 16 * 1024 * 1024;

interface Attempt {
  readonly finished: boolean;
  /** Shards that it found finished by an earlier attempt, and did not write. */
  readonly found: readonly string[];
  /** Shards that it wrote, or began to write. */
  readonly written: readonly string[];
}

interface Step {
  readonly shard: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** Starts a merge and kills it once it has come so far, or so many milliseconds later. */
async function attempt(
  { base, adapter }: Directories,
  output: string,
  threads: number,
  kill: { readonly atFraction: number; readonly afterMs: number },
): Promise<Attempt> {
  const child = spawn(process.execPath, [CHILD, base, adapter, output, String(threads)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = new Promise<NodeJS.Signals | null>((resolve, reject) => {
    child.on('close', (code, signal) => {
      if (code === null || code === 0) resolve(signal);
      else reject(new Error(`the merge failed with ${code}`));
    });
  });
  const steps: Step[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const step = JSON.parse(line) as Step;
    steps.push(step);
    if (step.bytesDone >= kill.atFraction * step.bytesTotal) {
      if (kill.afterMs > 0) await sleep(kill.afterMs);
      child.kill('SIGKILL');
    }
  }
  const signal = await exit;
  return { finished: signal === null, ...summarise(steps) };
}

/** A shard that is found finished reports its end alone; one that is written starts with less. */
function summarise(steps: readonly Step[]): Pick<Attempt, 'found' | 'written'> {
  const found: string[] = [];
  const written: string[] = [];
  let bytesBefore = 0;
  for (const shard of new Set(steps.map((step) => step.shard))) {
    const own = steps.filter((step) => step.shard === shard);
    const bytesAtStart = (own[0]?.bytesDone ?? 0) - bytesBefore;
    (bytesAtStart > SHARD_BYTES_MIN ? found : written).push(shard);
    bytesBefore = own.at(-1)?.bytesDone ?? 0;
  }
  return { found, written };
}

async function digestsOf(directory: string): Promise<Record<string, string>> {
  const digests: Record<string, string> = {};
  for (const name of (await readdir(directory)).sort()) {
    digests[name] = (await digestFile(join(directory, name))).sha256;
  }
  return digests;
}

test(
  'a merge killed twenty times gives the bytes of an undisturbed one',
  async () => {
    const root = await temporaryDirectory();
    const inputs = await writeLargeModel(root, LAYOUT);
    const undisturbed = join(root, 'undisturbed');
    await mergeDirectories({ ...inputs, output: undisturbed, threads: 2 });
    const expected = await digestsOf(undisturbed);

    const output = join(root, 'output');
    const random = new Random(7);
    let kills = 0;
    let resumed = 0;
    const finished = new Set<string>();
    while (kills < KILLS) {
      // Past the end, too: while it is sealed and moved into place.
      const atFraction = Math.min(1, random.below(1050) / 1000);
      const kill = { atFraction, afterMs: random.below(4) };
      const result = await attempt(inputs, output, random.pick([1, 4]), kill);
      expect(result.written.filter((shard) => finished.has(shard))).toEqual([]);
      if (result.found.length > 0) resumed++;
      if (!result.finished) kills++;
      // The last one may have been killed before it was renamed.
      for (const shard of result.written.slice(0, -1)) finished.add(shard);
      if (existsSync(output)) {
        expect(await digestsOf(output)).toEqual(expected);
        await rm(output, { recursive: true });
        finished.clear();
      }
    }
    // Otherwise the kills came too early to show anything.
    expect(resumed).toBeGreaterThan(KILLS / 4);

    await attempt(inputs, output, 4, { atFraction: Infinity, afterMs: 0 });
    expect(await digestsOf(output)).toEqual(expected);
    expect((await readdir(root)).sort()).toEqual(['adapter', 'base', 'output', 'undisturbed']);
  },
  TIMEOUT_MS,
);
