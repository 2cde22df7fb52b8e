import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Context } from '@temporalio/activity';
import { artefactName } from '../config/artefact-name.ts';
import { directoryTargets } from '../config/publish-schema.ts';
import { mergeOptionsOf, type RecipeAdapter } from '../config/recipe.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { chooseResources } from '../engine/merge/resources.ts';
import { checkDiskSpace, outputBytes } from '../engine/plan/disk-space.ts';
import { previewMerge } from '../engine/plan/plan-merge.ts';
import { isMerged } from '../engine/plan/planned-tensor.ts';
import { checkTrainedOn } from '../sources/adapter-lineage.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import {
  downloadBytes,
  fetchedInto,
  fetchToDisk,
  type LocatedModel,
  openRemotely,
  type ResolvedModel,
  resolveModel,
  withoutWeights,
} from '../sources/model-input.ts';
import { checkSigning, checkTargets } from './check-targets.ts';
import type { Dependencies } from './dependencies.ts';
import { reservedSpace } from './disk-leases.ts';
import { withHeartbeat } from './heartbeat.ts';
import { requireFewFiles, shownLines } from './history-limits.ts';
import { countGrowth } from './measures.ts';
import { namedAdapters, nameOfAdapters, resolvedAdapters } from './resolved-adapters.ts';
import { streamedMerge, streamLimits } from './streamed-merge.ts';
import type { Preflight, ReleaseContext, ResolvedBase, ResolvedInputs } from './types.ts';
import { runFile } from './workspace.ts';

/** What of an input comes to this disk. */
function fetchedOf(model: ResolvedBase): LocatedModel {
  return model.fetch === 'stream' ? withoutWeights(model) : model;
}

/** So that a release can go on whose server has forgotten it. */
async function keepRun(home: string, context: ReleaseContext): Promise<void> {
  const { workflowExecution: { workflowId = '' } = {}, workflowType } = Context.current().info;
  // A night that looks whether anything has changed is none; the release that it begins is.
  if (workflowType === 'nightlyRelease') return;
  const file = runFile(home, workflowId);
  await mkdir(dirname(file), { recursive: true });
  await writeFileDurably(file, `${JSON.stringify(context, null, 2)}\n`);
}

/** What a model is called, and the files of it that its pin names one by one. */
function listedFiles(model: ResolvedModel): [name: string, count: number] {
  if (model.kind === 'directory') return [model.path, 0];
  if (model.kind === 'hub') return [model.repo, model.files.length];
  return [model.model.uri, model.model.files.length];
}

/** resolve, fetch and preflight: what happens before a plan. */
export function createInputActivities({ home, access, ...limits }: Dependencies) {
  return {
    /** Pins the base and the adapters to what they are now. */
    async resolveInputs({ recipe, recipeDigest }: ReleaseContext): Promise<ResolvedInputs> {
      return withHeartbeat('resolve', async (report, signal) => {
        await keepRun(home, { recipe, recipeDigest });
        let bytesDone = 0;
        const onBytes = (count: number): void => {
          bytesDone += count;
          report({ item: 'digests of local files', bytesDone, bytesTotal: 0 });
        };
        // The adapters first: they are small, and a typo in a name is found at once.
        const resolve = (wanted: RecipeAdapter) =>
          resolveModel(access, { ...wanted, role: 'adapter', signal, onBytes });
        const [first, ...others] = recipe.adapters;
        const adapter = await resolve(first);
        const otherAdapters: ResolvedModel[] = [];
        for (const other of others) otherAdapters.push(await resolve(other));
        const base = await resolveModel(access, { ...recipe.base, role: 'base', signal, onBytes });
        for (const model of [adapter, ...otherAdapters, base])
          requireFewFiles(...listedFiles(model));
        const artefact = artefactName({
          base: recipe.base.model,
          version: recipe.version,
          ...nameOfAdapters(
            resolvedAdapters({ recipe }, { adapter, otherAdapters }),
            recipe.combination,
          ),
        });
        return {
          base: { ...base, ...(recipe.base.fetch && { fetch: recipe.base.fetch }) },
          adapter,
          ...(others.length > 0 && { otherAdapters }),
          artefact,
        };
      });
    },

    /** Brings one input to this machine's disk; of a base that is streamed, all but its weights. */
    async fetchInput(model: ResolvedBase): Promise<string> {
      return withHeartbeat('fetch', async (report, signal) => {
        const count = countGrowth('weldline_fetched_bytes', 0);
        return fetchToDisk(access, fetchedOf(model), {
          signal,
          onProgress: ({ file, bytesDone, bytesTotal, bytesReceived }) => {
            count(bytesReceived);
            report({ item: file, bytesDone, bytesTotal });
          },
        });
      });
    },

    /** Everything that can fail cheaply, from headers and the adapters' values. */
    async preflight(
      { recipe }: ReleaseContext,
      inputs: ResolvedInputs,
      ...adapterDirectories: readonly string[]
    ): Promise<Preflight> {
      return withHeartbeat('preflight', async (_report, signal) => {
        const named = namedAdapters({ recipe }, inputs, adapterDirectories);
        const { combination } = mergeOptionsOf(recipe);
        const streamed = streamedMerge({ recipe }, inputs);
        await checkTrainedOn(access, inputs.base, named, { askHub: true, combination, signal });
        const base = await openRemotely(access, inputs.base);
        const adapters = await Promise.all(
          resolvedAdapters({ recipe }, inputs).map(async ({ id }, index) => ({
            id,
            files: await openModelDirectory(adapterDirectories[index] ?? ''),
          })),
        );
        const plan = await previewMerge(base, adapters, mergeOptionsOf(recipe));
        requireFewFiles('The merged checkpoint', plan.shards.length);
        chooseResources(plan, {
          threads: recipe.merge.threads ?? limits.threads,
          memoryBudgetBytes: recipe.merge.memoryBudgetBytes ?? limits.memoryBudgetBytes,
          ...streamLimits(plan, streamed),
        });
        const download = await downloadBytes(access, fetchedOf(inputs.base));
        const output = outputBytes(plan, streamed?.output === undefined);
        const targets = directoryTargets(recipe);
        const ofSigning = await checkSigning(recipe, limits.identity);
        await checkTargets(recipe, inputs.artefact, undefined, limits.publishing, signal);
        const needs = [
          { directory: fetchedInto(access, inputs.base), bytes: download, purpose: 'the base' },
          { directory: home, bytes: output, purpose: 'the merged checkpoint' },
          ...targets.map((directory) => ({ directory, bytes: output, purpose: 'the release' })),
        ];
        await checkDiskSpace(needs, await reservedSpace(home));
        const tensors = plan.shards.flatMap((shard) => shard.tensors);
        return {
          warnings: shownLines([...plan.warnings, ...ofSigning]),
          tensorsMerged: tensors.filter(isMerged).length,
          downloadBytes: download,
          outputBytes: output,
        };
      });
    },
  };
}
