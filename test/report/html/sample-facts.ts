/** A release as it might be: the insight may be a real one, the rest is typed by hand. */
import { ggufType } from '../../../config/gguf-types.ts';
import type { RecipeSuite } from '../../../config/release-quality.ts';
import type { ConversionManifest, ConversionStep } from '../../../conversion/conversion-step.ts';
import type { InsightSummary } from '../../../engine/insight/measure-merge.ts';
import type { CandidateStep } from '../../../evaluation/candidate.ts';
import type {
  ArtefactDecision,
  GateSignal,
  Interval,
  SuiteDecision,
} from '../../../evaluation/gate-decision.ts';
import type { SuiteResult } from '../../../evaluation/results.ts';
import type { Suite } from '../../../evaluation/suite.ts';
import { releaseFacts } from '../../../report/release-facts.ts';
import type { ReportFactsInput } from '../../../report/report-facts.ts';

const digest = (character: string): string => character.repeat(64);
const suiteIds = ['calculator', 'extractor'] as const;

/** Correct answers of 20, KL to the reference (or none), bits per weight (of conversions). */
const MODELS: Readonly<
  Record<string, { correct: readonly [number, number]; kl?: number; bits?: number }>
> = {
  base: { correct: [1, 0] },
  'adapter:calculator': { correct: [19, 1] },
  'adapter:extractor': { correct: [2, 20] },
  merged: { correct: [19, 20], kl: 0.000031 },
  'gguf-f16': { correct: [19, 20], kl: 0, bits: 16.01 },
  'gguf-q8_0': { correct: [19, 20], kl: 0.00042, bits: 8.51 },
  'gguf-q5_k_m': { correct: [19, 20], kl: 0.0039, bits: 5.69 },
  'gguf-q4_k_m': { correct: [18, 20], kl: 0.0124, bits: 4.83 },
  'gguf-q4_k_s': { correct: [18, 20], kl: 0.0149, bits: 4.58 },
  'gguf-q2_k': { correct: [9, 11], kl: 0.412, bits: 2.96 },
  'awq-w4a16-g64': { correct: [18, 19], kl: 0.0171, bits: 4.51 },
};

const kindOf = (id: string): CandidateStep['kind'] => {
  if (id === 'base' || id === 'merged') return id;
  if (id.startsWith('adapter:')) return 'adapter';
  return id.startsWith('awq') ? 'awq' : 'gguf';
};

const isArtefact = (id: string): boolean => !['base', 'adapter'].includes(kindOf(id));
const isConversion = (id: string): boolean => isArtefact(id) && id !== 'merged';

const CANDIDATES: readonly CandidateStep[] = Object.keys(MODELS).map((id) => ({
  id,
  kind: kindOf(id),
  runner: kindOf(id) === 'gguf' ? 'llama.cpp' : 'transformers',
  suites: suiteIds,
  ...(isConversion(id) && { conversion: id }),
  ...(isArtefact(id) && { comparedWith: sourceOf(id, 0) }),
}));

/** What its distributions are compared with. */
function sourceOf(id: string, suite: number): string {
  if (id === 'merged') return `adapter:${suiteIds[suite]}`;
  return id === 'gguf-f16' || id.startsWith('awq') ? 'merged' : 'gguf-f16';
}

const SUITES: readonly RecipeSuite[] = suiteIds.map((id) => ({
  ...{ id, adapter: id, data: `/somebody/${id}.jsonl`, matcher: 'contains' },
  ...{ newTokensMax: 8, dropMax: 0.001, klMax: 0.1 },
  ...(id === 'calculator' && { scoreMin: 0.8 }),
}));

const LOADED: readonly Suite[] = suiteIds.map((id) => ({
  ...{ id, digest: digest('5'), newTokensMax: 8 },
  exercises: Array.from({ length: 20 }, (_, index) => ({
    ...{ index, prompt: `Q: ${index}+${index + 1} =`, addSpecialTokens: true },
    ...{ expected: ` [${2 * index + 1}]`, matcher: 'contains' as const },
  })),
}));

/** Wilson's interval is not this; a picture needs no more. */
function interval(correct: number): Interval {
  const value = correct / 20;
  const low = Math.max(0, value - 0.06 - 0.3 * value * (1 - value));
  const high = Math.min(1, value + 0.06 + 0.3 * value * (1 - value));
  return { value, low, high };
}

const RESULTS: readonly SuiteResult[] = Object.entries(MODELS).flatMap(([candidate, model]) =>
  suiteIds.map((suite, at) => ({
    ...{ candidate, suite, suiteDigest: digest('5'), artefactDigest: digest('6') },
    runner:
      kindOf(candidate) === 'gguf'
        ? 'llama.cpp v0.4.0 (80fb11ac), node-llama-cpp 3.21.1'
        : 'transformers 5.17.0, torch 2.11.0, peft 0.21.2',
    answers: Array.from({ length: 20 }, (_, index) => {
      const correct = index < model.correct[at]!;
      return { index, correct, text: correct ? ` [${2 * index + 1}]` : ` [${index}]\nQ: what?` };
    }),
    score: model.correct[at]! / 20,
    ...(at === 0 && { perplexity: { value: 6.36 + (model.kl ?? 0), tokens: 4096 } }),
    ...(model.kl !== undefined && {
      comparison: {
        ...{ with: sourceOf(candidate, at), positions: 180, klMean: model.kl },
        ...{ klMax: 20 * model.kl, logitDifferenceMax: 0.5 + model.kl, ofLogProbabilities: false },
        ...{ top1Agreement: 1 - Math.min(0.5, model.kl), tokenizedDifferently: [] },
      },
    }),
  })),
);

const FAILURES: readonly GateSignal[] = suiteIds.map((suite) => ({
  ...{ signal: 'score-drop', suite },
  message:
    'It answers 9 of 20 prompts where its reference answers 19: a drop of 50.0 % (30.0 % to 70.0 %), where 0.1 % is allowed.',
}));

const SMALL: GateSignal = {
  ...{ signal: 'suite-too-small', suite: 'calculator' },
  message:
    'It answers one prompt less than its reference. On 20 prompts that may be chance: only drops of 20 % and more would be seen. About 3000 prompts would tell.',
};

function decisionOn(candidate: string, at: number): SuiteDecision {
  const model = MODELS[candidate]!;
  const reference = `adapter:${suiteIds[at]}`;
  const referenceModel = MODELS[reference]!;
  const drop = (referenceModel.correct[at]! - model.correct[at]!) / 20;
  return {
    ...{ suite: suiteIds[at]!, reference, prompts: 20 },
    ...{
      score: interval(model.correct[at]!),
      referenceScore: interval(referenceModel.correct[at]!),
    },
    baseScore: interval(MODELS['base']!.correct[at]!),
    drop: { value: drop, low: drop - 0.05, high: drop + 0.1 },
    ...{ smallestDropSeen: 0.2, kl: model.kl ?? 0, klMax: 0.1 },
  };
}

const DECISIONS: readonly ArtefactDecision[] = Object.keys(MODELS)
  .filter((id) => isArtefact(id) && id !== 'gguf-f16')
  .map((candidate) => ({
    candidate,
    passed: candidate !== 'gguf-q2_k',
    failures: candidate === 'gguf-q2_k' ? FAILURES : [],
    warnings: MODELS[candidate]!.correct[0] === 18 ? [SMALL] : [],
    suites: [decisionOn(candidate, 0), decisionOn(candidate, 1)],
  }));

function conversion(id: string): { step: ConversionStep; manifest: ConversionManifest } {
  const bits = MODELS[id]!.bits!;
  const size = Math.round((134_515_008 * bits) / 8);
  const isGguf = kindOf(id) === 'gguf';
  const type = ggufType(isGguf ? id.slice(5).toUpperCase() : 'F16').name as 'F16';
  const settings = {
    ...{ kind: 'awq' as const, bits: 4 as const, groupSize: 64, symmetric: true },
    ...{ ignore: ['lm_head'], calibration: '/somebody/calibration.jsonl' },
    ...{ samples: 4, sequenceLength: 64 },
  };
  const modules = ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.down_proj'];
  const layerErrors = [0, 1, 2].flatMap((layer) =>
    modules.map((name, at) => [`model.layers.${layer}.${name}`, 0.08 + 0.01 * at + 0.005 * layer]),
  );
  return {
    step: isGguf
      ? { kind: 'gguf', id, type, wanted: type !== 'F16' }
      : { kind: 'awq', id, settings },
    manifest: {
      ...{ format: 'weldline.conversion', id, kind: isGguf ? 'gguf' : 'awq', key: digest('7') },
      tools: isGguf
        ? { 'llama.cpp': 'v0.4.0 (80fb11ac)' }
        : { llmcompressor: '0.14.0.1', torch: '2.11.0' },
      settings: isGguf ? { type } : { bits: 4, group_size: 64, ignore: ['lm_head'] },
      bitsPerWeight: bits,
      checks: ['Names, shapes and special tokens are those of the checkpoint.', 'No block is NaN.'],
      warnings:
        id === 'gguf-q2_k' ? ['Q2_K is known to erase what a fine-tune taught a model.'] : [],
      ...(!isGguf && { layerErrors: Object.fromEntries(layerErrors) }),
      files: [{ path: `${id}.gguf`, size, sha256: digest('8') }],
    },
  };
}

export interface SampleOptions {
  readonly name?: string;
  readonly insight?: InsightSummary;
}

/** What a release of two adapters hands to its report. */
export function sampleInput({ name = 'two-tasks', insight }: SampleOptions = {}): ReportFactsInput {
  const files = [{ path: 'model.safetensors', size: 269_060_552, sha256: digest('1') }];
  const release = releaseFacts({
    ...{ name, version: '1.2.0', artefact: `merged-smollm2-1.2.0-adapter-${name}` },
    manifest: {
      ...{ format: 'weldline.merge', engine: { version: '0.1.0', format: 1 }, plan: digest('2') },
      inputs: [
        { id: 'base', model: 'base', files },
        ...suiteIds.map((id) => ({
          ...{ id, model: id },
          files: [{ path: 'adapter_model.safetensors', size: 9_824_056, sha256: digest('3') }],
        })),
      ],
      options: { combination: 'linear', weights: '1, 1' },
      rules: [{ adapter: 'calculator', rule: 'peft' }],
      ...{ configEdits: [], warnings: ['No tokenizer came with adapter "extractor".'] },
      tensors: { total: 272, merged: 210, replaced: 0 },
      files,
    },
    manifestDigest: digest('4'),
    provenance: {
      recipe: { name, version: '1.2.0', digest: digest('9') },
      inputs: {
        base: { model: 'hf://org/smollm2', commit: 'd'.repeat(40) },
        calculator: { model: 'calculator', trainingRun: 'run-17' },
        extractor: { model: 'extractor' },
      },
    },
    verification: {
      ...{ filesChecked: 8, bytesChecked: 269_100_000, tensorsChecked: 272 },
      ...{ rowsRecomputed: 630, worstRounding: 0.5 },
    },
    insight,
    run: { workflowId: `release-${name}`, runId: 'r', startedAt: '2026-11-25T08:00:00.000Z' },
  });
  const begin = Date.UTC(2026, 10, 25, 8);
  const seconds = [
    ...(['resolve 2', 'fetch adapter 1', 'preflight 3', 'fetch base 41', 'plan 6'] as const),
    ...(['merge 4', 'seal 1', 'verify 3', 'convert 260', 'evaluate 310', 'gate 1'] as const),
  ].map((text) => [text.slice(0, text.lastIndexOf(' ')), Number(text.split(' ').at(-1))] as const);
  let at = begin;
  const stages = seconds.map(([stage, took]) => {
    const startedAtMs = stage === 'evaluate' ? at - 200_000 : at;
    at = startedAtMs + 1000 * took;
    return { stage, startedAtMs, finishedAtMs: at };
  });
  return {
    release,
    tensors: insight?.tensors,
    conversions: Object.keys(MODELS).filter(isConversion).map(conversion),
    evaluation: {
      ...{ onFailure: 'wait', suites: SUITES, candidates: CANDIDATES, results: RESULTS },
      gate: { format: 'weldline.gate', artefacts: DECISIONS },
      loaded: LOADED,
    },
    publications: [{ candidate: 'merged', location: './releases/two-tasks', existed: false }],
    stages,
  };
}
