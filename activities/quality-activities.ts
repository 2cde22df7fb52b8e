import { join } from 'node:path';
import { convert } from '../conversion/convert.ts';
import type { Conversion } from '../conversion/convert-options.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { assert } from '../engine/errors.ts';
import { readManifest } from '../engine/verify/verify-merge.ts';
import type { CandidateModel } from '../evaluation/candidate-runner.ts';
import { type EvaluationProgress, evaluateCandidate } from '../evaluation/evaluate-candidate.ts';
import { decideGate } from '../evaluation/gate/decide-gate.ts';
import { isMergeExact } from '../evaluation/gate/is-merge-exact.ts';
import type { SuiteResult } from '../evaluation/results.ts';
import type { Suite } from '../evaluation/suite.ts';
import { identityOf } from '../sources/model-input.ts';
import type { Dependencies } from './dependencies.ts';
import { finishedConversion } from './finished-conversion.ts';
import { withHeartbeat } from './heartbeat.ts';
import { judgedOutcome, judgedParts } from './judged-parts.ts';
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
import { conversionDirectory, evaluationDirectory, suiteDirectory, toolLog } from './workspace.ts';

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
        const { candidate, inputs } = input;
        const tools = await findTools(dependencies, [needsOfCandidate(candidate)], signal);
        assert(input.suites !== undefined, 'suites that were not kept');
        const suites = await readStored<readonly Suite[]>(suiteDirectory(home), input.suites);
        const isElsewhere = candidate.runner === 'endpoint';
        const bytes = isElsewhere
          ? 0
          : (await checkpointBytes(input)) * MEMORY_PER_CHECKPOINT_BYTE.evaluate;
        const directory = evaluationDirectory(home);
        const model = await modelOf(input);
        const results = await memory.run(bytes, signal, () =>
          evaluateCandidate({
            ...{ step: candidate, suites, model, directory, signal },
            references: Object.fromEntries(
              input.references.map(({ candidate: id, digest }) => [id, digest]),
            ),
            tools: { ...tools, threads, endpointKey: dependencies.tools.endpointKey },
            onProgress: (progress) => report(progressOf(candidate.id, progress)),
            logFile: toolLog(home, inputs.artefact, candidate.id),
          }),
        );
        const { digest } = model;
        const kept = await store(join(directory, 'results'), results);
        return { candidate: candidate.id, digest, results: kept };
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
        const decision = decideGate({
          evaluation,
          candidates: plan.candidates,
          results,
          published: judgedParts(plan),
          isMergeExact: isMergeExact(recipe),
        });
        return {
          decision: await store(join(evaluationDirectory(home), 'decisions'), decision),
          ...judgedOutcome(decision, plan),
        };
      });
    },
  };
}

/** What a candidate is on this machine. */
async function modelOf(input: EvaluateInput): Promise<CandidateModel> {
  const { candidate, converted, roots, sealed, planDigest, inputs, recipe } = input;
  const base = identityOf(inputs.base);
  const endpoint = { endpoint: recipe.evaluation?.endpoint };
  switch (candidate.kind) {
    case 'base':
      return { ...endpoint, directory: roots['base'] ?? '', digest: digestOf({ base }) };
    case 'adapter': {
      const id = candidate.id.slice('adapter:'.length);
      const adapter = resolvedAdapters(input, inputs).find((each) => each.id === id);
      assert(adapter !== undefined, `candidate ${candidate.id} has no adapter`);
      const directory = roots['base'] ?? '';
      // An adapter that brings tokens sees what the merged model sees.
      const tokenizer = sealed.directory;
      const digest = digestOf({
        base,
        adapter: identityOf(adapter.resolved),
        // Of several adapters another may have brought the tokenizer.
        ...(recipe.adapters.length > 1 && { tokenizerOf: planDigest }),
      });
      return { ...endpoint, directory, tokenizer, adapter: roots[id] ?? '', digest };
    }
    case 'merged':
      return { ...endpoint, directory: sealed.directory, digest: planDigest };
    default: {
      assert(converted !== undefined, `candidate ${candidate.id} is not converted`);
      const conversion = await finishedConversion(converted);
      const { directory, manifestDigest: digest } = conversion;
      if (candidate.kind !== 'gguf') return { ...endpoint, directory, digest };
      return { ...endpoint, ggufFile: ggufFileOf(conversion), digest };
    }
  }
}

/** The file that llama.cpp is given: of parts, the first. */
function ggufFileOf({ directory, manifest }: Conversion): string {
  const names = manifest.files.map(({ path }) => path).filter((name) => name.endsWith('.gguf'));
  const [first] = names.sort();
  assert(first !== undefined, `${directory} holds no GGUF file`);
  return join(directory, first);
}

/** Bytes of the merged checkpoint, by which memory is estimated. */
async function checkpointBytes({ sealed }: Pick<MergedContext, 'sealed'>): Promise<number> {
  const { files } = await readManifest(sealed.directory);
  return files.reduce((sum, { size }) => sum + size, 0);
}

function progressOf(candidate: string, { suite, phase, done, total }: EvaluationProgress) {
  const fraction = total > 0 ? done / total : undefined;
  return share(`${candidate}: ${suite}, ${phase} ${done} of ${total}`, fraction);
}

/** A share of work that is not counted in bytes. */
function share(item: string, fraction: number | undefined) {
  return { item, bytesDone: 0, bytesTotal: 0, ...(fraction === undefined ? {} : { fraction }) };
}
