import { open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { YARDSTICK } from './merge-report.ts';
import type { BenchModel } from './model-data.ts';
import { runProcess } from './run-process.ts';

/** The compiled package, as its users run it: sources need more time to start, and more memory. */
export const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

const PEFT_SCRIPT = fileURLToPath(new URL('../oracle/peft_merge.py', import.meta.url));

/** What one run of a contestant took. */
export interface Measurement {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakMemoryBytes: number;
  /** Parts of `seconds` that the program reports itself. */
  readonly parts?: Readonly<Record<string, number>>;
}

export interface Contestant {
  readonly name: string;
  /** Writes the merged checkpoint, or the copy, to `output`, and syncs it. */
  run(output: string, signal: AbortSignal): Promise<Measurement>;
}

/** `cp` of the checkpoint and a sync of what it wrote: what no merge can be much faster than. */
export function copyContestant(model: BenchModel): Contestant {
  return {
    name: YARDSTICK,
    async run(output, signal) {
      // A copy that shares blocks with its source writes nothing and would prove nothing.
      const plain = process.platform === 'linux' ? ['--reflink=never'] : [];
      const startedAt = performance.now();
      const run = await runProcess('cp', [...plain, '-R', model.base, output], { signal });
      for (const name of await readdir(output)) await syncFile(join(output, name));
      const { cpuSeconds, peakMemoryBytes } = run;
      return { seconds: (performance.now() - startedAt) / 1000, cpuSeconds, peakMemoryBytes };
    },
  };
}

/**
 * `weldline merge` as a process of its own.
 * @param home keeps the digests of inputs; `fresh` forgets them before each run
 */
export function weldlineContestant(
  name: string,
  model: BenchModel,
  home: string,
  { fresh, threads }: { readonly fresh: boolean; readonly threads?: string | undefined },
): Contestant {
  return {
    name,
    async run(output, signal) {
      if (fresh) await rm(home, { recursive: true, force: true });
      const args = ['merge', ...inputArguments(model), '--output', output, '--json'];
      if (threads !== undefined) args.push('--threads', threads);
      const run = await weldline(args, home, signal);
      const result = JSON.parse(run.stdout) as {
        peakMemoryBytes: number;
        tensors: { merged: number };
      };
      if (result.tensors.merged === 0) throw new Error('weldline merged no tensor');
      return {
        seconds: run.seconds,
        cpuSeconds: run.cpuSeconds,
        // The process knows its own peak to the end; the poll may miss the last moments.
        peakMemoryBytes: Math.max(result.peakMemoryBytes, run.peakMemoryBytes),
      };
    },
  };
}

/** Time of `weldline plan`: the share of a merge that is neither arithmetic nor output. */
export async function planSeconds(
  model: BenchModel,
  home: string,
  signal: AbortSignal,
): Promise<number> {
  return (await weldline(['plan', ...inputArguments(model), '--json'], home, signal)).seconds;
}

/** PEFT as its users run it: load, merge, save; with the imports that the process needs. */
export function peftContestant(model: BenchModel, python: string): Contestant {
  return {
    name: 'PEFT',
    async run(output, signal) {
      const args = [PEFT_SCRIPT, '--base', model.base, '--adapter', model.adapter, '--out', output];
      const run = await runProcess(python, args, { signal });
      const { seconds: parts, peak_rss_bytes: peak } = JSON.parse(run.stdout) as {
        seconds: Record<string, number>;
        peak_rss_bytes: number;
      };
      const peakMemoryBytes = Math.max(peak, run.peakMemoryBytes);
      return { seconds: run.seconds, cpuSeconds: run.cpuSeconds, peakMemoryBytes, parts };
    },
  };
}

/** Reads every byte of the inputs, so that all contestants find them in the page cache. */
export async function warmInputs(model: BenchModel, signal: AbortSignal): Promise<void> {
  const buffer = new Uint8Array(8 * 1024 * 1024);
  for (const directory of [model.base, model.adapter]) {
    for (const name of await readdir(directory)) {
      const file = await open(join(directory, name), 'r');
      try {
        while ((await file.read(buffer)).bytesRead > 0) signal.throwIfAborted();
      } finally {
        await file.close();
      }
    }
  }
}

function inputArguments(model: BenchModel): string[] {
  return ['--base', model.base, '--adapter', model.adapter];
}

function weldline(args: readonly string[], home: string, signal: AbortSignal) {
  return runProcess(process.execPath, [CLI, ...args], {
    signal,
    variables: { WELDLINE_HOME: home },
  });
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
