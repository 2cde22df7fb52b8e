/** Heads of model cards, as the hub's own Python client reads them. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ConversionManifest } from '../../conversion/conversion-step.ts';
import type { BaseCard } from '../../report/base-card.ts';
import { candidateMetrics } from '../../report/candidate-metrics.ts';
import { conversionCard } from '../../report/conversion-card.ts';
import { modelCard } from '../../report/model-card.ts';
import type { ReleaseFacts } from '../../report/release-facts.ts';
import { reportFacts } from '../../report/report-facts.ts';
import { runServicesPython } from '../services-python.ts';
import { sampleInput } from './html/sample-facts.ts';

const REPORT = reportFacts(sampleInput());
const COMMIT = 'd'.repeat(40);

const BASE_CARD: BaseCard = {
  license: { id: 'other', name: 'tiny-license', link: 'LICENSE' },
  // Norway's code is a word for false in YAML 1.1, which Python reads.
  languages: ['no', 'en'],
  pipelineTag: 'text-generation',
};

function facts(change: Partial<ReleaseFacts> = {}): ReleaseFacts {
  return {
    ...REPORT.release,
    baseCard: BASE_CARD,
    ...(REPORT.evaluation && { gate: REPORT.evaluation.gate }),
    inputs: [
      { id: 'base', model: 'hf://org/tiny', commit: COMMIT, files: [] },
      { id: 'calculator', model: 'hf://org/adapters/calculator', commit: COMMIT, files: [] },
      { id: 'extractor', model: 'extractor', files: [] },
    ],
    ...change,
  };
}

function conversion(kind: ConversionManifest['kind'], id: string): ConversionManifest {
  const found = REPORT.conversions.find(({ manifest }) => manifest.id === id)?.manifest;
  return { ...(found ?? REPORT.conversions[0]!.manifest), kind, id };
}

const results = REPORT.evaluation?.results ?? [];
const withLicense = { path: 'LICENSE', size: 1, sha256: 'a'.repeat(64) };
const local = facts({ inputs: facts().inputs.map((input) => ({ ...input, model: 'tiny' })) });
const q8 = conversion('gguf', 'gguf-q8_0');
/** A merge as near as they come: figures with an exponent. */
const near = (kl: number) => {
  const suites = [{ suite: 's', reference: 'base', prompts: 20, kl }];
  const artefact = { ...{ candidate: 'merged', passed: true, failures: [], warnings: [] }, suites };
  return modelCard(facts({ gate: { format: 'weldline.gate', artefacts: [artefact] } }));
};
const CARDS = {
  near: near(1e-7),
  nearer: near(1.5e-9),
  merged: modelCard(facts(), REPORT),
  'merged with its licence': modelCard(facts({ files: [withLicense] }), REPORT),
  'merged from directories': modelCard(local),
  gguf: conversionCard(facts(), 'a-gguf-q8_0', q8, { results }),
  'gguf of a hub': conversionCard(facts(), 'a', q8, { mergedRepo: 'org/merged' }),
  awq: conversionCard(facts(), 'a-awq', conversion('awq', 'awq-w4a16-g64')),
  adapter: conversionCard(facts(), 'a', conversion('gguf-adapter', 'gguf-adapter-calculator')),
} as const;
type CardName = keyof typeof CARDS;

interface ReadCard {
  readonly data: Readonly<Record<string, unknown>>;
  readonly results: readonly Readonly<Record<string, unknown>>[];
}

const cards = {} as Record<CardName, ReadCard>;
beforeAll(async () => {
  const names = Object.keys(CARDS) as CardName[];
  const read = await runServicesPython(join(import.meta.dirname, 'read_cards.py'), [
    ...Object.values(CARDS),
  ]);
  for (const [index, card] of (read as ReadCard[]).entries()) cards[names[index]!] = card;
});

describe('the head of a card', () => {
  it('says what was merged, under which licence, for what', () => {
    expect(cards.merged.data).toEqual({
      base_model: ['org/tiny', 'org/adapters'],
      base_model_relation: 'merge',
      library_name: 'transformers',
      pipeline_tag: 'text-generation',
      license: 'other',
      license_name: 'tiny-license',
      license_link: `https://huggingface.co/org/tiny/blob/${COMMIT}/LICENSE`,
      language: ['no', 'en'],
      tags: ['merged-lora', 'weldline'],
    });
    expect(cards['merged with its licence'].data['license_link']).toBe('LICENSE');
  });

  it('names only models that the hub has', () => {
    expect(cards['merged from directories'].data).toEqual({
      library_name: 'transformers',
      pipeline_tag: 'text-generation',
      ...{ license: 'other', license_name: 'tiny-license' },
      language: ['no', 'en'],
      tags: ['merged-lora', 'weldline'],
    });
  });

  it.each([
    [
      'gguf',
      { base_model: ['org/tiny', 'org/adapters'], base_model_relation: 'merge' },
      { library_name: 'gguf', tags: ['merged-lora', 'weldline', 'gguf'] },
    ],
    [
      'gguf of a hub',
      { base_model: ['org/merged'], base_model_relation: 'quantized' },
      { library_name: 'gguf' },
    ],
    [
      'awq',
      { base_model_relation: 'merge', library_name: 'transformers' },
      { tags: ['merged-lora', 'weldline', 'awq', 'compressed-tensors'] },
    ],
    [
      'adapter',
      { base_model: ['org/tiny'], base_model_relation: 'adapter' },
      { library_name: 'gguf', tags: ['lora', 'weldline', 'gguf'] },
    ],
  ] as const)('says of a conversion what it is: %s', (name, lineage, format) => {
    expect(cards[name].data).toMatchObject({ ...lineage, ...format });
  });

  it('has the figures of the evaluation, and what measured them', () => {
    const { artefact, engine } = REPORT.release;
    const common = { model: artefact, task: 'text-generation', suite: 'calculator' };
    const evaluator = `weldline ${engine.version} with transformers 5.17.0, torch 2.11.0, peft 0.21.2`;
    expect(cards.merged.results.slice(0, 3)).toEqual([
      {
        ...{ ...common, metric: 'accuracy', value: 0.95 },
        args: {
          evaluator,
          confidence_interval_95: [expect.closeTo(0.87, 1), expect.closeTo(1, 1)],
        },
      },
      {
        ...{ ...common, metric: 'perplexity', value: expect.closeTo(6.36) },
        args: { evaluator },
      },
      {
        ...{ ...common, metric: 'kl_divergence', value: 0.000_031 },
        args: { evaluator, reference: 'adapter calculator on its base' },
      },
    ]);
    expect(cards.near.results).toMatchObject([{ value: 1e-7 }]);
    expect(cards.nearer.results).toMatchObject([{ value: 1.5e-9 }]);
    expect(cards.gguf.results.map(({ suite, metric }) => `${suite}/${metric}`)).toEqual([
      ...['calculator/accuracy', 'calculator/perplexity', 'calculator/kl_divergence'],
      ...['extractor/accuracy', 'extractor/kl_divergence'],
    ]);
    expect(cards['merged from directories'].results).toEqual(
      cards.merged.results.flatMap(({ args, metric, ...rest }) =>
        metric === 'perplexity'
          ? []
          : [
              {
                ...rest,
                metric,
                args: { ...(args as object), evaluator: `weldline ${engine.version}` },
              },
            ],
      ),
    );
  });
});

describe('the metrics of a candidate', () => {
  it('are none where it was not judged, and no figure is infinite', () => {
    expect(candidateMetrics('merged', undefined, results)).toEqual([]);
    expect(candidateMetrics('nobody', REPORT.evaluation?.gate, results)).toEqual([]);
    const suite = { suite: 's', reference: 'base', prompts: 0, kl: Infinity };
    const artefact = { candidate: 'x', passed: true, failures: [], warnings: [], suites: [suite] };
    const gate = { format: 'weldline.gate' as const, artefacts: [artefact] };
    expect(candidateMetrics('x', gate)).toEqual([]);
  });
});
