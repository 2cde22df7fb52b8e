import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { compileKernel } from '../../kernels/index.ts';
import type { Manifest } from '../manifest.ts';
import { checkDiskSpace, outputBytes } from '../plan/disk-space.ts';
import { type Plan, planDigest } from '../plan/plan.ts';
import { type Provenance, sealMerge } from '../seal.ts';
import type { CompletedShard } from './journal.ts';
import { mergeShard } from './merge-shard.ts';
import { inspectOutput, moveIntoPlace, type Staging, stagingBeside } from './output-directory.ts';
import type { MergeResources } from './resources.ts';
import { bytesOnDisk } from './shard-file.ts';
import type { MergeProgress } from './shard-options.ts';
import type { StreamedInputs } from './streamed-input.ts';

export interface MergeModelOptions {
  readonly plan: Plan;
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** Inputs whose weights are read where they are. */
  readonly streamed?: StreamedInputs | undefined;
  readonly output: string;
  readonly resources: MergeResources;
  readonly provenance: Provenance;
  readonly onProgress?: ((progress: MergeProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface MergedModel {
  readonly manifest: Manifest;
  /** Whether the output was there already, finished by an earlier run of the same plan. */
  readonly existed: boolean;
}

/**
 * Carries out a plan in this process: all shards, one after the other, then the seal, then the
 * rename to `output`. Killed at any point, the same call goes on where it stopped.
 *
 * @throws WeldlineError `output.*`, `merge.*`, `disk.*`; the signal's reason if it is aborted
 */
export async function mergeModel(options: MergeModelOptions): Promise<MergedModel> {
  const { plan, roots, output, signal } = options;
  const digest = planDigest(plan);
  const staging = stagingBeside(output, digest);
  const find = (): Promise<Manifest | undefined> =>
    inspectOutput(output, digest, Object.values(roots));
  let existing = await find();
  if (existing === undefined) {
    try {
      return { manifest: await carryOut(options, digest, staging), existed: false };
    } catch (error) {
      if (signal?.aborted === true) throw error;
      // Another process that made the same merge may have moved it into place meanwhile.
      existing = await find().catch(() => undefined);
      if (existing === undefined) throw error;
    }
  }
  // Left if an earlier run died right after it had moved the merge into place.
  await rm(staging.root, { recursive: true, force: true });
  return { manifest: existing, existed: true };
}

async function carryOut(
  options: MergeModelOptions,
  digest: string,
  staging: Staging,
): Promise<Manifest> {
  const { plan, roots, streamed, output, resources, provenance, signal } = options;
  const bytes = Math.max(0, outputBytes(plan) - (await bytesOnDisk(staging)));
  await checkDiskSpace([{ directory: dirname(output), bytes, purpose: 'the merged checkpoint' }]);

  const kernel = await compileKernel();
  const bytesTotal = plan.shards.reduce((sum, shard) => sum + shard.size, 0);
  let bytesBefore = 0;
  const shards: CompletedShard[] = [];
  for (const shard of plan.shards) {
    const bytesInEarlier = bytesBefore;
    const completed = await mergeShard({
      plan,
      planDigest: digest,
      shard,
      roots,
      streamed,
      directory: staging,
      resources,
      kernel,
      signal,
      onProgress: ({ tensor, bytesDone }) =>
        options.onProgress?.({
          shard: shard.file,
          tensor,
          bytesDone: bytesInEarlier + bytesDone,
          bytesTotal,
        }),
    });
    shards.push(completed);
    bytesBefore += shard.size;
  }
  const manifest = await sealMerge({
    plan,
    planDigest: digest,
    shards,
    roots,
    directory: staging.files,
    provenance,
  });
  await moveIntoPlace(staging, output);
  return manifest;
}
