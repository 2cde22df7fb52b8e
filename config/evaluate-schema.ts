import { z } from 'zod';

/** How a recipe proves that what it made is as good as the adapter on its base. */

const SUITES_MAX = 50;
const NEW_TOKENS_MAX = 1 << 16;
/** What a drop of the score may be, before the gate calls it one. */
export const MAX_DROP_DEFAULT = 0.001;
export const NEW_TOKENS_DEFAULT = 64;
/**
 * By what share perplexity may rise: Q4_K_M costs SmolLM2-135M 6 %, and larger models lose less. It has
 * no interval, so it is a demand and not a test.
 */
export const PERPLEXITY_RISE_MAX_DEFAULT = 0.1;

export const MATCHERS = ['contains', 'exact', 'regex', 'json', 'choice'] as const;

const path = (description: string) => z.string().min(1).max(4096).describe(description);
const share = (description: string) => z.number().min(0).max(1).optional().describe(description);

/** What of a suite says nothing without its data, or its text. */
const KEYS_ABOUT = {
  data: ['matcher', 'max_new_tokens', 'max_drop', 'min_score', 'max_kl'],
  text: ['max_perplexity_rise'],
} as const;

const suite = z
  .strictObject({
    id: z
      .string()
      .max(100)
      .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)
      .describe('a short name of the suite: letters, digits, ".", "_" and "-"'),
    data: path('the path of JSONL with a prompt or messages, and what is expected').optional(),
    text: path('the path of text whose perplexity is measured').optional(),
    adapter: z.string().max(100).optional().describe('the id of the adapter it is about'),
    matcher: z
      .enum(MATCHERS)
      .optional()
      .describe(`one of ${MATCHERS.join(', ')}, how answers are judged (default contains)`),
    max_new_tokens: z
      .int()
      .min(1)
      .max(NEW_TOKENS_MAX)
      .optional()
      .describe(
        `a whole number of tokens of an answer from 1 to ${NEW_TOKENS_MAX} (default ${NEW_TOKENS_DEFAULT})`,
      ),
    max_drop: share(
      `a number from 0 to 1, by how much the score may be below the adapter's on its base (default ${MAX_DROP_DEFAULT})`,
    ),
    min_score: share('a number from 0 to 1, which the score must reach'),
    max_kl: z
      .number()
      .gt(0)
      .max(100)
      .optional()
      .describe('a number above 0, the mean KL divergence in nats that is still accepted'),
    max_perplexity_rise: z
      .number()
      .min(0)
      .max(100)
      .optional()
      .describe(
        `a number from 0 to 100, the share by which perplexity may be above the adapter's on its base (default ${PERPLEXITY_RISE_MAX_DEFAULT})`,
      ),
  })
  .superRefine((value, context) => {
    if (value.data === undefined && value.text === undefined) {
      const message = 'give data (JSONL with answers), text (for perplexity), or both';
      context.addIssue({ code: 'custom', message });
      return;
    }
    // A demand that nothing measures would look as if it had been met.
    for (const [source, keys] of Object.entries(KEYS_ABOUT)) {
      for (const key of value[source as keyof typeof KEYS_ABOUT] === undefined ? keys : []) {
        if (value[key] === undefined) continue;
        const message = `${key} is about ${source}, and this suite has none: leave it out`;
        context.addIssue({ code: 'custom', path: [key], message });
      }
    }
  })
  .describe(
    'a mapping with one suite: {id, data, text, adapter, matcher, max_new_tokens, max_drop, min_score, max_kl, max_perplexity_rise}',
  );

const url = z
  .string()
  .max(2000)
  .superRefine((value, context) => {
    const parsed = URL.canParse(value) ? new URL(value) : undefined;
    const isPlain =
      parsed !== undefined &&
      ['http:', 'https:'].includes(parsed.protocol) &&
      parsed.username === '' &&
      parsed.password === '' &&
      parsed.search === '';
    if (isPlain) return;
    const message =
      'expected the URL of an OpenAI-compatible server such as http://127.0.0.1:8000/v1, ' +
      'without credentials or a query (a key goes into WELDLINE_ENDPOINT_KEY)';
    context.addIssue({ code: 'custom', message });
  })
  .describe('the URL of an OpenAI-compatible server such as http://127.0.0.1:8000/v1');

const served = (description: string) => z.string().min(1).max(500).describe(description);

/** As candidates are named (evaluation/candidate.ts); whether there is such a one shows later. */
const CANDIDATE = /^(base|merged|adapter:.+|(gguf|awq|gptq)-.+)$/;

const endpoint = z
  .strictObject({
    url,
    models: z
      .record(z.string().max(200), served('the name under which the server has it'))
      .superRefine((models, context) => {
        const names = Object.keys(models);
        if (names.length === 0) {
          const message =
            'name at least one candidate that the server has, such as {merged: <name>}';
          context.addIssue({ code: 'custom', message });
        }
        for (const name of names.filter((each) => !CANDIDATE.test(each))) {
          const message =
            'there is no such candidate: expected base, merged, adapter:<id> or the id of a conversion ' +
            'such as awq-w4a16-g128';
          context.addIssue({ code: 'custom', path: [name], message });
        }
        // A model that is compared with itself passes, whatever was merged.
        for (const [index, name] of names.entries()) {
          const same = names.slice(0, index).find((other) => models[other] === models[name]);
          if (same === undefined) continue;
          const message = `${same} is "${models[name]}" already: candidates are different models`;
          context.addIssue({ code: 'custom', path: [name], message });
        }
      })
      .describe(
        'a mapping from a candidate (base, merged, adapter:<id>, …) to the name that the server has for it',
      ),
  })
  .describe('a mapping {url, models}');

export const evaluate = z
  .strictObject({
    suites: z
      .array(suite)
      .min(1)
      .max(SUITES_MAX)
      .describe(`a list of 1 to ${SUITES_MAX} suites: {id, data, …}`),
    endpoint: endpoint.optional(),
    on_failure: z
      .enum(['wait', 'stop'])
      .optional()
      .describe('wait (for a person, who may override) or stop (the run fails); default wait'),
  })
  .describe('a mapping {suites, endpoint, on_failure}');

export const approval = z
  .enum(['none', 'required'])
  .describe('none, or required: a person says yes before anything is published');

/** What of a recipe an evaluation is about. */
interface EvaluationShape {
  readonly adapters: readonly { readonly id: string }[];
  readonly evaluate?: z.infer<typeof evaluate> | undefined;
}

/** Suites have ids of their own, and each is about an adapter that there is. */
export function refineEvaluation(recipe: EvaluationShape, context: z.RefinementCtx): void {
  const { adapters, evaluate: given } = recipe;
  const ids = adapters.map(({ id }) => id);
  for (const [index, { id, adapter }] of (given?.suites ?? []).entries()) {
    const path = ['evaluate', 'suites', index];
    if (given?.suites.findIndex((other) => other.id === id) !== index) {
      const message = `two suites have the id "${id}"; give each an id of its own`;
      context.addIssue({ code: 'custom', path: [...path, 'id'], message });
    }
    if (adapter !== undefined && !ids.includes(adapter)) {
      const message = `there is no adapter "${adapter}"; there is ${ids.join(', ')}`;
      context.addIssue({ code: 'custom', path: [...path, 'adapter'], message });
    }
    if (adapter === undefined && ids.length > 1) {
      const message = `there are several adapters: say which one it is about, ${ids.join(' or ')}`;
      context.addIssue({ code: 'custom', path: [...path, 'adapter'], message });
    }
  }
  for (const name of Object.keys(given?.endpoint?.models ?? {})) {
    const adapter = /^adapter:(.+)$/.exec(name)?.[1];
    if (adapter === undefined || ids.includes(adapter)) continue;
    const message = `there is no adapter "${adapter}"; there is ${ids.join(', ')}`;
    context.addIssue({ code: 'custom', path: ['evaluate', 'endpoint', 'models', name], message });
  }
}
