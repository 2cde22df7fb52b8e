import type { z } from 'zod';
import type { convert } from './convert-schema.ts';
import {
  type evaluate,
  type MATCHERS,
  MAX_DROP_DEFAULT,
  NEW_TOKENS_DEFAULT,
} from './evaluate-schema.ts';
import type { GgufTypeName } from './gguf-types.ts';
import { parseSize } from './parse-size.ts';

/** What a recipe says of conversions and evaluation, with paths absolute and defaults filled in. */

export interface GgufConversion {
  readonly kind: 'gguf';
  readonly quantizations: readonly GgufTypeName[];
  /** The file that the others are quantized from. */
  readonly from: 'F16' | 'BF16' | 'F32';
  /** An importance matrix, or the text to make one of; absolute paths. */
  readonly imatrix?: { readonly file: string } | { readonly calibration: string };
  /** Larger files are cut into parts of this many bytes. */
  readonly splitBytes?: number;
  /** Whether the adapters become GGUF files too. */
  readonly adapters: boolean;
}

/** Integer weights by llm-compressor. */
export interface IntegerConversion {
  readonly kind: 'awq' | 'gptq';
  readonly bits: 4 | 8;
  readonly groupSize: number;
  readonly symmetric: boolean;
  /** Module names, or `re:` and a pattern, as llm-compressor has them. */
  readonly ignore: readonly string[];
  /** Absolute path of JSONL or text. */
  readonly calibration: string;
  readonly samples: number;
  readonly sequenceLength: number;
}

export type RecipeConversion = GgufConversion | IntegerConversion;

export type Matcher = (typeof MATCHERS)[number];

export interface RecipeSuite {
  readonly id: string;
  /** Absolute path of JSONL with prompts. */
  readonly data?: string;
  /** Absolute path of text for perplexity. */
  readonly text?: string;
  /** The adapter on its base is what candidates are compared with. */
  readonly adapter: string;
  readonly matcher: Matcher;
  readonly newTokensMax: number;
  readonly dropMax: number;
  readonly scoreMin?: number;
  /** Mean KL divergence, nats per token. */
  readonly klMax?: number;
  /** Share by which perplexity may rise; the gate has a default. */
  readonly perplexityRiseMax?: number;
}

export interface RecipeEndpoint {
  /** Without a trailing slash. */
  readonly url: string;
  /** What the server calls a candidate: `base`, `merged`, `adapter:<id>`, … */
  readonly models: Readonly<Record<string, string>>;
}

export interface RecipeEvaluation {
  readonly suites: readonly RecipeSuite[];
  readonly endpoint?: RecipeEndpoint;
  readonly onFailure: 'wait' | 'stop';
}

type ToPath = (path: string) => string;

export function toConversions(
  document: z.infer<typeof convert>,
  toPath: ToPath,
): readonly RecipeConversion[] {
  return document.flatMap(({ gguf, awq, gptq }): RecipeConversion[] => {
    if (gguf !== undefined) {
      const { imatrix } = gguf;
      return [
        {
          kind: 'gguf',
          quantizations: gguf.quantization,
          from: gguf.from ?? 'F16',
          ...(imatrix?.file === undefined ? {} : { imatrix: { file: toPath(imatrix.file) } }),
          ...(imatrix?.calibration === undefined
            ? {}
            : { imatrix: { calibration: toPath(imatrix.calibration) } }),
          ...(gguf.split === undefined ? {} : { splitBytes: parseSize(gguf.split) }),
          adapters: gguf.adapters ?? false,
        },
      ];
    }
    const kind = awq === undefined ? 'gptq' : 'awq';
    const settings = awq ?? gptq;
    if (settings === undefined) return [];
    return [
      {
        kind,
        bits: settings.bits ?? 4,
        groupSize: settings.group_size ?? 128,
        symmetric: settings.symmetric ?? true,
        ignore: settings.ignore ?? ['lm_head'],
        calibration: toPath(settings.calibration),
        samples: settings.samples ?? 256,
        sequenceLength: settings.sequence_length ?? 512,
      },
    ];
  });
}

export function toEvaluation(
  document: z.infer<typeof evaluate>,
  firstAdapter: string,
  toPath: ToPath,
): RecipeEvaluation {
  const { endpoint } = document;
  return {
    suites: document.suites.map((suite) => ({
      id: suite.id,
      ...(suite.data === undefined ? {} : { data: toPath(suite.data) }),
      ...(suite.text === undefined ? {} : { text: toPath(suite.text) }),
      adapter: suite.adapter ?? firstAdapter,
      matcher: suite.matcher ?? 'contains',
      newTokensMax: suite.max_new_tokens ?? NEW_TOKENS_DEFAULT,
      dropMax: suite.max_drop ?? MAX_DROP_DEFAULT,
      ...(suite.min_score === undefined ? {} : { scoreMin: suite.min_score }),
      ...(suite.max_kl === undefined ? {} : { klMax: suite.max_kl }),
      ...(suite.max_perplexity_rise === undefined
        ? {}
        : { perplexityRiseMax: suite.max_perplexity_rise }),
    })),
    ...(endpoint === undefined
      ? {}
      : { endpoint: { url: endpoint.url.replace(/\/+$/, ''), models: endpoint.models } }),
    onFailure: document.on_failure ?? 'wait',
  };
}
