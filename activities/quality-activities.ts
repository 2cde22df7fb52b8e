import { join } from 'node:path';
import { convert } from '../conversion/convert.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { assert } from '../engine/errors.ts';
import { readManifest } from '../engine/verify/verify-merge.ts';
import { type CandidateModel, evaluateCandidate } from '../evaluation/evaluate-candidate.ts';
import { decideGate } from '../evaluation/gate/decide-gate.ts';
import { describeSignal, describeWarnings } from '../evaluation/gate/describe-decision.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import { loadSuites } from '../evaluation/load-suites.ts';
import type { SuiteResult } from '../evaluation/results.ts';
import { identityOf } from '../sources/model-input.ts';
import type { Dependencies } from './dependencies.ts';
import { withHeartbeat } from './heartbeat.ts';
import type {
  Converted,
  ConvertInput,
  Evaluated,
  EvaluateInput,
  Judged,
  JudgeInput,
  MergedContext,
} from './quality-types.ts';
import { findTools, needsOfCandidate, needsOfConversion } from './release-tools.ts';
import { resolvedAdapters } from './resolved-adapters.ts';
import { readStored, store } from './stored-json.ts';
import { conversionDirectory, evaluationDirectory, toolLog } from './workspace.ts';

/** Evaluation computes in float32, twice a 16-bit checkpoint; the rest is activations. */
const MEMORY_PER_CHECKPOINT_BYTE = { evaluate: 2.5, convert: 1.5, calibrate: 3 };

/** convert, evaluate and judge: from a checked checkpoint to what may be published of it. */
export function createQualityActivities(dependencies: Dependencies) {
  const { home, memory, threads } = dependencies;
  return {
    /** Makes one conversion; what is finished already is found. */
    async convert(input: ConvertInput): Promise<Converted> {
      return withHeartbeat('convert', async (report, signal) => {
        const { step, sealed, planDigest, roots, source, inputs } = input;
        const tools = await findTools(dependencies, [needsOfConversion(step)], signal);
        const isCalibrated = step.kind === 'awq' || step.kind === 'gptq';
        const { calibrate, convert: plain } = MEMORY_PER_CHECKPOINT_BYTE;
        const bytes = (await checkpointBytes(input)) * (isCalibrated ? calibrate : plain);
        const { base = '', ...adapters } = roots;
        const { directory, manifestDigest } = await memory.run(bytes, signal, () =>
          convert({
            step,
            merged: sealed.directory,
            mergedDigest: planDigest,
            adapters,
            base,
            sources: source === undefined ? {} : { [source.id]: source.directory },
            directory: conversionDirectory(home),
            modelName: inputs.artefact,
            tools,
            threads,
            signal,
            onProgress: ({ stage, fraction }) => report(share(`${step.id}: ${stage}`, fraction)),
            logFile: toolLog(home, inputs.artefact, step.id),
          }),
        );
        return { id: step.id, directory, manifestDigest };
      });
    },

    /** Asks one candidate all its suites; what was answered already is found. */
    async evaluate(input: EvaluateInput): Promise<Evaluated> {
      return withHeartbeat('evaluate', async (report, signal) => {
        const { candidate, sealed, recipe, inputs } = input;
        assert(recipe.evaluation !== undefined, 'evaluation of a recipe without suites');
        const tools = await findTools(dependencies, [needsOfCandidate(candidate)], signal);
        const suites = await loadSuites(recipe.evaluation.suites, sealed.directory);
        const bytes = (await checkpointBytes(input)) * MEMORY_PER_CHECKPOINT_BYTE.evaluate;
        const directory = evaluationDirectory(home);
        const results = await memory.run(bytes, signal, () =>
          evaluateCandidate({
            step: candidate,
            suites,
            model: modelOf(input, dependencies),
            tools,
            directory,
            threads,
            signal,
            onProgress: ({ item, fraction }) => report(share(`${candidate.id}: ${item}`, fraction)),
            logFile: toolLog(home, inputs.artefact, candidate.id),
          }),
        );
        return {
          candidate: candidate.id,
          results: await store(join(directory, 'results'), results),
        };
      });
    },

    /** Lets the gate decide on all that would be published. */
    async judge(input: JudgeInput): Promise<Judged> {
      return withHeartbeat('gate', async () => {
        const { recipe, plan, evaluated } = input;
        assert(recipe.evaluation !== undefined, 'a gate of a recipe without suites');
        const directory = join(evaluationDirectory(home), 'results');
        const results: SuiteResult[] = [];
        for (const each of evaluated) {
          results.push(...(await readStored<readonly SuiteResult[]>(directory, each.results)));
        }
        const { evaluation } = recipe;
        const decision = decideGate({ evaluation, candidates: plan.candidates, results });
        return {
          decision: await store(join(evaluationDirectory(home), 'decisions'), decision),
          ...outcome(decision, input),
        };
      });
    },
  };
}

/** Parts that are published by the decision, and why others are not. */
function outcome(
  decision: GateDecision,
  { plan }: JudgeInput,
): Pick<Judged, 'passed' | 'failed' | 'warnings'> {
  const published = new Set(['merged']);
  for (const step of plan.conversions) {
    if (step.kind !== 'gguf' || step.wanted) published.add(step.id);
  }
  const judged = decision.artefacts.filter(({ candidate }) => published.has(candidate));
  const failed = judged.filter(({ passed }) => !passed);
  const passed = judged.filter((each) => each.passed).map(({ candidate }) => candidate);
  // An adapter is what it was, in another format: it goes where the merge goes.
  const adapters = plan.conversions.filter(({ kind }) => kind === 'gguf-adapter');
  if (passed.includes('merged')) passed.push(...adapters.map(({ id }) => id));
  return {
    passed,
    failed: failed.map((each) => ({
      id: each.candidate,
      message: each.failures.map(describeSignal).join(' '),
    })),
    warnings: describeWarnings(judged),
  };
}

/** What a candidate is on this machine. */
function modelOf(input: EvaluateInput, { tools }: Dependencies): CandidateModel {
  const { candidate, converted, roots, sealed, planDigest, inputs, recipe } = input;
  const base = identityOf(inputs.base);
  const endpoint = recipe.evaluation?.endpoint;
  const served = endpoint?.models[candidate.id];
  const common =
    candidate.runner === 'endpoint' && endpoint !== undefined && served !== undefined
      ? { endpoint: { url: endpoint.url, model: served, key: tools.endpointKey } }
      : {};
  switch (candidate.kind) {
    case 'base':
      return { ...common, directory: roots['base'] ?? '', digest: digestOf({ base }) };
    case 'adapter': {
      const id = candidate.id.slice('adapter:'.length);
      const adapter = resolvedAdapters(input, inputs).find((each) => each.id === id);
      assert(adapter !== undefined, `candidate ${candidate.id} has no adapter`);
      const digest = digestOf({ base, adapter: identityOf(adapter.resolved) });
      return { ...common, directory: roots['base'] ?? '', adapter: roots[id] ?? '', digest };
    }
    case 'merged':
      return { ...common, directory: sealed.directory, digest: planDigest };
    default:
      assert(converted !== undefined, `candidate ${candidate.id} is not converted`);
      return { ...common, directory: converted.directory, digest: converted.manifestDigest };
  }
}

/** Bytes of the merged checkpoint, by which memory is estimated. */
async function checkpointBytes({ sealed }: Pick<MergedContext, 'sealed'>): Promise<number> {
  const { files } = await readManifest(sealed.directory);
  return files.reduce((sum, { size }) => sum + size, 0);
}

/** A share of work that is not counted in bytes. */
function share(item: string, fraction: number | undefined) {
  return { item, bytesDone: 0, bytesTotal: 0, ...(fraction === undefined ? {} : { fraction }) };
}
