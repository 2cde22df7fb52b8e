import { open, readdir, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CacheState, Contestant, Measurement } from './measurement.ts';
import type { EngineRun } from './merge-engine.ts';
import type { BenchModel } from './model-data.ts';
import { type ProcessRun, runProcess } from './run-process.ts';

/** The compiled package, as its users run it: sources need more time to start, and more memory. */
const PACKAGE = fileURLToPath(new URL('../dist/', import.meta.url));
const CLI = join(PACKAGE, 'cli/main.js');
const ENGINE = fileURLToPath(new URL('merge-engine.ts', import.meta.url));

/** The names that the table of cases asks for. */
export const NAMES = {
  copy: 'cp + sync',
  merge: 'weldline merge',
  mergeNewBase: 'weldline merge, base new',
  hashed: 'shards, hashed as they are made',
  unhashed: 'shards, not hashed',
  plan: 'weldline plan',
  help: 'weldline --help',
  helpCold: 'weldline --help, files not in the cache',
} as const;

/** `cp` of the checkpoint and a sync of what it wrote: what no merge can be much faster than. */
export function copyContestant(model: BenchModel): Contestant {
  return {
    name: NAMES.copy,
    inputs: [model.base],
    async run(output, signal) {
      // A copy that shares blocks with its source writes nothing and would prove nothing.
      const plain = process.platform === 'linux' ? ['--reflink=never'] : [];
      const run = await runProcess('cp', [...plain, '-R', model.base, output], { signal });
      return withSyncOf(output, run);
    },
  };
}

export interface MergeContestantOptions {
  readonly name: string;
  /** Keeps the digests of inputs; removed and made by the contestant. */
  readonly home: string;
  /** Whether the base's digest is remembered from an earlier merge; the adapter's never is. */
  readonly baseKnown: boolean;
}

/** `weldline merge` with its default settings, as a process of its own. */
export function mergeContestant(model: BenchModel, options: MergeContestantOptions): Contestant {
  const { name, home, baseKnown } = options;
  const inputs = ['--base', model.base, '--adapter', model.adapter];
  const forget = (): Promise<void> => rm(home, { recursive: true, force: true });
  return {
    name,
    inputs: [model.base, model.adapter],
    async prepare(signal) {
      await forget();
      if (baseKnown) await weldline(['plan', ...inputs, '--digest'], home, signal);
    },
    async reset() {
      if (!baseKnown) await forget();
      // Digests go by the times of files: people merge an adapter that they have just trained.
      else await touchFiles(model.adapter);
    },
    async run(output, signal) {
      const args = ['merge', ...inputs, '--output', output, '--json'];
      const run = await weldline(args, home, signal);
      const result = JSON.parse(run.stdout) as {
        peakMemoryBytes: number;
        tensors: { merged: number };
      };
      if (result.tensors.merged === 0) throw new Error('weldline merged no tensor');
      // The process knows its own peak to the end; who watches it may miss the last moments.
      return withoutOutput(run, Math.max(result.peakMemoryBytes, run.peakMemoryBytes));
    },
  };
}

/** The engine alone, with or without hashing what it writes. */
export function shardsContestant(model: BenchModel, mode: 'hashed' | 'unhashed'): Contestant {
  return {
    name: NAMES[mode],
    inputs: [model.base, model.adapter],
    async run(output, signal) {
      const args = [ENGINE, mode, model.base, model.adapter, output];
      const run = await runProcess(process.execPath, args, { signal });
      const { seconds } = JSON.parse(run.stdout) as EngineRun;
      return { ...withoutOutput(run), seconds };
    },
  };
}

/** `weldline plan`, which reads headers. */
export function planContestant(
  { base, adapter }: Pick<BenchModel, 'base' | 'adapter'>,
  home: string,
): Contestant {
  const args = ['plan', '--base', base, '--adapter', adapter];
  return {
    name: NAMES.plan,
    // The headers are brought into the cache by a run: the files are of 800 GB, most of it holes.
    inputs: [],
    async prepare(signal) {
      await weldline(args, home, signal);
    },
    async reset() {
      await rm(home, { recursive: true, force: true });
    },
    run: async (_output, signal) => withoutOutput(await weldline(args, home, signal)),
  };
}

/** The time until a person sees something. */
export function helpContestant(cache: CacheState, home: string): Contestant {
  return {
    name: cache === 'warm' ? NAMES.help : NAMES.helpCold,
    inputs: [PACKAGE, process.execPath],
    cache,
    run: async (_output, signal) => withoutOutput(await weldline(['--help'], home, signal)),
  };
}

/** Runs the compiled command. */
export function weldline(
  args: readonly string[],
  home: string,
  signal: AbortSignal,
  watchChildren = false,
): Promise<ProcessRun> {
  const variables = { WELDLINE_HOME: home };
  return runProcess(process.execPath, [CLI, ...args], { signal, variables, watchChildren });
}

/** Syncs the files that a program has left in the cache, and counts that as its time. */
export async function withSyncOf(directory: string, run: ProcessRun): Promise<Measurement> {
  const startedAt = performance.now();
  for (const name of await readdir(directory)) {
    const file = await open(join(directory, name), 'r+');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }
  return { ...withoutOutput(run), seconds: run.seconds + (performance.now() - startedAt) / 1000 };
}

/** What is kept of a run: its output is often long. */
export function withoutOutput(run: ProcessRun, peakMemoryBytes = run.peakMemoryBytes): Measurement {
  const { stdout: _, ...measurement } = run;
  return { ...measurement, peakMemoryBytes };
}

async function touchFiles(directory: string): Promise<void> {
  const now = new Date();
  for (const name of await readdir(directory)) await utimes(join(directory, name), now, now);
}
