import { mergeOptionsOf } from '../config/recipe.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import { previewMerge } from '../engine/plan/plan-merge.ts';
import { requireServedModels } from '../evaluation/require-served-models.ts';
import { openModelDirectory } from '../sources/model-directory.ts';
import { openRemotely } from '../sources/model-input.ts';
import { buildLlamaPrograms } from '../tools/build-llama-programs.ts';
import type { Dependencies } from './dependencies.ts';
import { withHeartbeat } from './heartbeat.ts';
import { needsOf, preflightQuality, qualityOf } from './plan-quality.ts';
import type { QualityPlan } from './quality-types.ts';
import { findTools } from './release-tools.ts';
import { store } from './stored-json.ts';
import type { ReleaseContext, ResolvedInputs } from './types.ts';
import { suiteDirectory } from './workspace.ts';

/** What comes before the merge for the sake of what is made of it. */
export function createQualityPlanning(dependencies: Dependencies) {
  const { home, access } = dependencies;
  return {
    /** What is made of the merge and how it is judged, checked as far as that is possible now. */
    async planQuality(
      { recipe }: ReleaseContext,
      inputs: ResolvedInputs,
      ...adapterDirectories: readonly string[]
    ): Promise<QualityPlan> {
      return withHeartbeat('preflight', async (report, signal) => {
        report({ item: 'what conversions and evaluations need', bytesDone: 0, bytesTotal: 0 });
        const { conversions, candidates } = qualityOf(recipe);
        const needs = needsOf({ conversions, candidates });
        const tools = await findTools(dependencies, needs, signal);
        await requireServedModels({
          ...{ candidates, endpoint: recipe.evaluation?.endpoint, signal },
          key: dependencies.tools.endpointKey,
        });
        if (tools.llamaCpp !== undefined && conversions.some(isMakingImatrix)) {
          const { variables } = tools;
          await buildLlamaPrograms(tools.llamaCpp, ['llama-imatrix'], { variables, signal });
        }
        const base = await openRemotely(access, inputs.base);
        const adapters = await Promise.all(
          recipe.adapters.map(async ({ id }, index) => ({
            id,
            files: await openModelDirectory(adapterDirectories[index] ?? ''),
          })),
        );
        const preview = await previewMerge(base, adapters, mergeOptionsOf(recipe));
        const models = {
          base,
          ...Object.fromEntries(adapters.map(({ id, files }) => [id, files])),
        };
        const directories = recipe.adapters.map(
          ({ id }, index) => [id, adapterDirectories[index] ?? ''] as const,
        );
        const { suites, ...plan } = await preflightQuality({
          ...{ recipe, preview, models, tools, home, signal },
          adapters: Object.fromEntries(directories),
        });
        if (recipe.evaluation === undefined) return plan;
        return { ...plan, suites: await store(suiteDirectory(home), suites) };
      });
    },
  };
}

/** Whether llama.cpp's program for importance matrices is needed, which is built where it is not. */
function isMakingImatrix(step: ConversionStep): boolean {
  return step.kind === 'gguf' && step.imatrix !== undefined && 'calibration' in step.imatrix;
}
