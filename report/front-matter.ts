import { type CollectionTag, type ScalarTag, stringify } from 'yaml';
import type { ConversionManifest } from '../conversion/conversion-step.ts';
import type { BaseLicense } from './base-card.ts';
import type { CandidateMetric } from './candidate-metrics.ts';
import type { ReleaseFacts } from './release-facts.ts';
import { candidateName } from './wording.ts';

/**
 * The head of a model card, which the hub reads:
 * https://github.com/huggingface/hub-docs/blob/main/modelcard.md. The hub refuses a card whose
 * `base_model` is no name of the hub's, so models from elsewhere are not in it.
 */

/** Of the merged checkpoint. */
export function mergedFrontMatter(
  facts: ReleaseFacts,
  metrics: readonly CandidateMetric[],
): string {
  const models = facts.inputs.flatMap(({ model }) => hubRepo(model) ?? []);
  return frontMatter(facts, {
    models,
    relation: 'merge',
    library: 'transformers',
    tags: ['merged-lora', 'weldline'],
    files: facts.files.map(({ path }) => path),
    name: facts.artefact,
    metrics,
  });
}

/**
 * Of a conversion: one of the merged model where the hub has that, else of what was merged.
 * @param mergedRepo `org/name` where the merged checkpoint is published on the hub
 */
export function conversionFrontMatter(
  facts: ReleaseFacts,
  { kind, files }: ConversionManifest,
  { artefact, mergedRepo, metrics }: ConversionHead,
): string {
  const [base, ...adapters] = facts.inputs.map(({ model }) => hubRepo(model));
  const isGguf = kind.startsWith('gguf');
  const format = isGguf ? ['gguf'] : [kind, 'compressed-tensors'];
  const common = {
    library: isGguf ? 'gguf' : 'transformers',
    files: files.map(({ path }) => path),
    ...{ name: artefact, metrics },
  };
  if (kind === 'gguf-adapter') {
    const models = base === undefined ? [] : [base];
    return frontMatter(facts, {
      ...{ ...common, models, relation: 'adapter', tags: ['lora', 'weldline', ...format] },
    });
  }
  const merged = [base, ...adapters].flatMap((repo) => repo ?? []);
  return frontMatter(facts, {
    ...common,
    models: mergedRepo === undefined ? merged : [mergedRepo],
    relation: mergedRepo === undefined ? 'merge' : 'quantized',
    tags: ['merged-lora', 'weldline', ...format],
  });
}

export interface ConversionHead {
  readonly artefact: string;
  readonly mergedRepo?: string | undefined;
  readonly metrics: readonly CandidateMetric[];
}

interface Head {
  readonly models: readonly string[];
  readonly relation: 'merge' | 'quantized' | 'adapter';
  readonly library: string;
  readonly tags: readonly string[];
  /** Paths of what is published beside the card. */
  readonly files: readonly string[];
  readonly name: string;
  readonly metrics: readonly CandidateMetric[];
}

function frontMatter(facts: ReleaseFacts, head: Head): string {
  const { license, languages, pipelineTag } = facts.baseCard ?? {};
  const fields = {
    ...(head.models.length > 0 && {
      base_model: [...new Set(head.models)],
      base_model_relation: head.relation,
    }),
    library_name: head.library,
    ...(pipelineTag !== undefined && { pipeline_tag: pipelineTag }),
    ...(license && licenseFields(license, facts, head.files)),
    ...(languages && { language: languages }),
    tags: head.tags,
    ...(head.metrics.length > 0 && {
      'model-index': [{ name: head.name, results: results(facts, head) }],
    }),
  };
  return `---\n${toYaml(fields)}---\n`;
}

/**
 * YAML that 1.1 reads as it was meant: there `no` is false and `1e-7` a text, and the hub's Python
 * client reads so.
 */
function toYaml(fields: object): string {
  return stringify(fields, {
    version: '1.1',
    lineWidth: 0,
    directives: false,
    customTags: (tags) => tags.map((tag) => (isFloat(tag) ? withPoint(tag) : tag)),
  });
}

type Tag = ScalarTag | CollectionTag | string;

function isFloat(tag: Tag): tag is ScalarTag {
  if (typeof tag !== 'object' || 'nodeClass' in tag) return false;
  return tag.tag === 'tag:yaml.org,2002:float' && tag.format === undefined;
}

function withPoint(tag: ScalarTag): ScalarTag {
  return { ...tag, stringify: ({ value }) => String(value).replace(/^(-?\d+)e/, '$1.0e') };
}

/** A link to a file of the base leads there, unless the file is published beside the card too. */
function licenseFields(
  { id, name, link }: BaseLicense,
  { inputs: [base] }: ReleaseFacts,
  files: readonly string[],
): object {
  const repo = hubRepo(base?.model ?? '');
  const isHere = link !== undefined && (/^https?:/.test(link) || files.includes(link));
  const there =
    repo === undefined || base?.commit === undefined
      ? undefined
      : `https://huggingface.co/${repo}/blob/${base.commit}/${link}`;
  const target = isHere || link === undefined ? link : there;
  return {
    license: id,
    ...(name !== undefined && { license_name: name }),
    ...(target !== undefined && { license_link: target }),
  };
}

function hubRepo(model: string): string | undefined {
  return /^hf:\/\/([A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95})(\/|$)/.exec(model)?.[1];
}

const METRIC_NAMES: Readonly<Record<CandidateMetric['metric'], string>> = {
  accuracy: 'share of correct answers',
  perplexity: 'perplexity',
  kl_divergence: 'KL divergence from the reference, nats per token',
};

function results({ engine, baseCard }: ReleaseFacts, { metrics }: Head): object[] {
  const suites = [...new Set(metrics.map(({ suite }) => suite))];
  return suites.map((suite) => ({
    task: { type: baseCard?.pipelineTag ?? 'text-generation' },
    dataset: { name: suite, type: suite },
    metrics: metrics
      .filter((each) => each.suite === suite)
      .map(({ metric, value, low, high, reference, runner }) => ({
        ...{ type: metric, value, name: METRIC_NAMES[metric] },
        args: {
          evaluator: `weldline ${engine.version}${runner === undefined ? '' : ` with ${runner}`}`,
          ...(low !== undefined && high !== undefined && { confidence_interval_95: [low, high] }),
          ...(reference !== undefined && { reference: candidateName(reference) }),
        },
      })),
  }));
}
