import { mkdir, readFile, rm } from 'node:fs/promises';
import { mergeOptionsOf } from '../config/recipe.ts';
import { sha256Of } from '../engine/canonical-json.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { digestFile, writeFileDurably } from '../engine/durable-files.ts';
import { MANIFEST_FILE } from '../engine/manifest.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import { mergeShard } from '../engine/merge/merge-shard.ts';
import { inspectOutput, moveIntoPlace } from '../engine/merge/output-directory.ts';
import { chooseResources } from '../engine/merge/resources.ts';
import type { ShardSink } from '../engine/merge/shard-sink.ts';
import { outputBytes } from '../engine/plan/disk-space.ts';
import { formatPlan, type Plan, parsePlan } from '../engine/plan/plan.ts';
import { type AdapterInput, planMerge } from '../engine/plan/plan-merge.ts';
import { isMerged } from '../engine/plan/planned-tensor.ts';
import { sealMerge } from '../engine/seal.ts';
import { type Verification, verifyMerge } from '../engine/verify/verify-merge.ts';
import { compileKernel, type KernelModule } from '../kernels/index.ts';
import { checkTrainedOn } from '../sources/adapter-lineage.ts';
import type { ModelAccess, ResolvedModel } from '../sources/model-input.ts';
import { checkUnchanged, openInput } from '../sources/open-input.ts';
import { checkTargets } from './check-targets.ts';
import type { Dependencies } from './dependencies.ts';
import { endDiskLease, withDiskLease } from './disk-leases.ts';
import { withHeartbeat } from './heartbeat.ts';
import { shownLines } from './history-limits.ts';
import { countGrowth } from './measures.ts';
import { measurePlan } from './plan-insight.ts';
import { mergeProvenance } from './provenance.ts';
import { namedAdapters, resolvedAdapters } from './resolved-adapters.ts';
import {
  filesOnDisk,
  isIntact,
  recordSentShards,
  sealedFiles,
  streamedMerge,
  streamLimits,
  withStreams,
} from './streamed-merge.ts';
import type {
  MergeShardInput,
  PlanReference,
  ReleaseContext,
  ResolvedInputs,
  Roots,
  SealedMerge,
  SealInput,
  StreamedMerge,
} from './types.ts';
import { mergeWorkspace } from './workspace.ts';

/** plan, merge, seal and verify: from inputs on disk to a checked checkpoint in the workspace. */
export function createMergeActivities(dependencies: Dependencies) {
  const { home, access, ...limits } = dependencies;
  let kernel: Promise<KernelModule> | undefined;
  /** The shards of a merge come one after the other, and a large plan takes long to read. */
  let last: { readonly digest: string; readonly plan: Plan } | undefined;

  const openPlan = async (digest: string, streamed?: StreamedMerge) => {
    const workspace = mergeWorkspace(home, digest, streamed?.output);
    if (last?.digest !== digest) last = { digest, plan: await readPlan(workspace.plan, digest) };
    return { plan: last.plan, workspace };
  };

  return {
    /**
     * Writes the plan file and what is measured of it, and returns its digest. A version that is
     * taken ends it here.
     */
    async plan(
      { recipe }: ReleaseContext,
      inputs: ResolvedInputs,
      roots: Roots,
    ): Promise<PlanReference> {
      return withHeartbeat('plan', async (_report, signal) => {
        const open = (model: ResolvedModel, input: string) =>
          openInput(access, model, { directory: roots[input] ?? '', signal });
        const streamed = streamedMerge({ recipe }, inputs);
        const base =
          streamed?.base === undefined
            ? await open(inputs.base, 'base')
            : await openInput(access, streamed.base, { signal });
        const adapters: AdapterInput[] = [];
        for (const { id, resolved } of resolvedAdapters({ recipe }, inputs)) {
          adapters.push({ id, ...(await open(resolved, id)) });
        }
        const directories = recipe.adapters.map(({ id }) => roots[id] ?? '');
        const named = namedAdapters({ recipe }, inputs, directories);
        // Who is asked must not change the plan: preflight has asked the hub.
        const options = mergeOptionsOf(recipe);
        const { combination } = options;
        const asking = { askHub: false, combination };
        const lineage = await checkTrainedOn(access, inputs.base, named, asking);
        const merge = await planMerge(base, adapters, options);
        const plan = { ...merge, warnings: [...lineage, ...merge.warnings] };
        await access.digests.save();
        const text = formatPlan(plan);
        const digest = sha256Of(text);
        await checkTargets(recipe, inputs.artefact, digest, limits.publishing, signal);
        const workspace = mergeWorkspace(home, digest, streamed?.output);
        await mkdir(workspace.root, { recursive: true });
        await writeFileDurably(workspace.plan, text);
        await withStreams(dependencies, digest, streamed, ({ sink }) =>
          removeDamaged(access, workspace.sealed, digest, sink, signal),
        );
        kernel ??= compileKernel();
        const models = {
          base: base.files,
          ...Object.fromEntries(adapters.map(({ id, files }) => [id, files])),
        };
        const { warnings } = await measurePlan(plan, models, await kernel, workspace, {
          base: streamed?.base === undefined ? 'local' : 'remote',
          signal,
        });
        const tensors = plan.shards.flatMap((shard) => shard.tensors);
        return {
          digest,
          ...(streamed && { streamed }),
          shards: plan.shards.length,
          bytesTotal: plan.shards.reduce((sum, shard) => sum + shard.size, 0),
          tensorsTotal: tensors.length,
          tensorsMerged: tensors.filter(isMerged).length,
          warnings: shownLines([...plan.warnings, ...warnings]),
        };
      });
    },

    /** Merges one output shard, going on where an earlier attempt stopped. */
    async mergeShard(input: MergeShardInput): Promise<CompletedShard> {
      return withHeartbeat('merge', async (report, signal) => {
        const { planDigest: digest, roots, streamed } = input;
        const { plan, workspace } = await openPlan(digest, streamed);
        const shard = plan.shards[input.shard];
        if (shard === undefined) throw new RangeError(`plan ${digest} has no shard ${input.shard}`);
        const sealed = await inspectOutput(workspace.sealed, digest, Object.values(roots));
        const finished = sealed?.files.find((file) => file.path === shard.file);
        if (finished !== undefined) return { size: finished.size, sha256: finished.sha256 };
        const bytes = outputBytes(plan, streamed?.output === undefined);
        kernel ??= compileKernel();
        const module = await kernel;
        const merge = (): Promise<CompletedShard> =>
          withStreams(dependencies, digest, streamed, async (streams) => {
            await checkUnchanged(access, filesOnDisk(plan, streams.streamed), roots, signal);
            const count = countGrowth('weldline_merged_bytes');
            return mergeShard({
              plan,
              planDigest: digest,
              shard,
              roots,
              ...streams,
              directory: workspace.staging,
              resources: chooseResources(plan, {
                threads: input.threads ?? limits.threads,
                memoryBudgetBytes: input.memoryBudgetBytes ?? limits.memoryBudgetBytes,
                ...streamLimits(plan, streamed),
              }),
              kernel: module,
              signal,
              onProgress: ({ tensor, bytesDone, bytesTotal }) => {
                count(bytesDone);
                report({ item: tensor, bytesDone, bytesTotal });
              },
            });
          });
        return withDiskLease(home, { planDigest: digest, workspace, bytes }, merge);
      });
    },

    /** Adds side files and the manifest, and gives the checkpoint its place in the workspace. */
    async seal(input: SealInput): Promise<SealedMerge> {
      return withHeartbeat('seal', async (_report, signal) => {
        const { planDigest: digest, roots, shards } = input;
        const streamed = streamedMerge(input, input.inputs);
        const { plan, workspace } = await openPlan(digest, streamed);
        const { sealed, staging } = workspace;
        if ((await inspectOutput(sealed, digest, Object.values(roots))) === undefined) {
          await withStreams(dependencies, digest, streamed, async ({ sink }) => {
            if (sink === undefined) return;
            await mkdir(staging.files, { recursive: true });
            await recordSentShards(staging.files, plan, sink, signal);
          });
          await sealMerge({
            plan,
            planDigest: digest,
            shards,
            roots,
            directory: staging.files,
            provenance: mergeProvenance(input),
          });
          await moveIntoPlace(staging, sealed);
        }
        await endDiskLease(home, digest);
        const { sha256 } = await digestFile(`${sealed}/${MANIFEST_FILE}`);
        return { directory: sealed, manifestDigest: sha256 };
      });
    },

    /** Checks the sealed checkpoint: digests, inventory, finite values, recomputed rows. */
    async verify(digest: string, roots: Roots, streamed?: StreamedMerge): Promise<Verification> {
      return withHeartbeat('verify', async (report, signal) => {
        const { plan, workspace } = await openPlan(digest, streamed);
        const bytesTotal = outputBytes(plan);
        let bytesDone = 0;
        const onBytes = (count: number): void => {
          bytesDone += count;
          report({ item: 'digests', bytesDone, bytesTotal });
        };
        return withStreams(dependencies, digest, streamed, async ({ sink, streamed: remote }) =>
          verifyMerge({
            directory: workspace.sealed,
            files: await sealedFiles(workspace.sealed, sink),
            recompute: { plan, roots, streamed: remote },
            signal,
            onBytes,
          }),
        );
      });
    },
  };
}

/** A finished merge whose files are no longer what they were is made again, not released. */
async function removeDamaged(
  access: ModelAccess,
  sealed: string,
  digest: string,
  sink: ShardSink | undefined,
  signal: AbortSignal,
): Promise<void> {
  const manifest = await inspectOutput(sealed, digest, []);
  if (manifest === undefined) return;
  if (await isIntact(access, sealed, manifest.files, sink, signal)) return;
  await rm(sealed, { recursive: true });
}

async function readPlan(path: string, digest: string): Promise<Plan> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw toReadError(error, path);
  }
  return parsePlan(text, digest, path);
}
