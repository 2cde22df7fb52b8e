import { z } from 'zod';
import { MERGE_ONTO } from '../engine/plan/merge-onto-choices.ts';
import { ADAPTERS_MAX, WEIGHT_MAX } from '../engine/plan/plan.ts';
import { combination, density, refineParameters } from './combination-schema.ts';
import { convert } from './convert-schema.ts';
import { approval, evaluate, refineEvaluation } from './evaluate-schema.ts';
import { publish, refineTargets, sign } from './publish-schema.ts';
import { size } from './size-schema.ts';

/**
 * The recipe as it is written (snake_case). Every `description` completes the sentence
 * "expected …": errors and `recipe.schema.json` are both made from it.
 */

/** Names become parts of file names and workflow ids: 100 leaves room for the rest of a name. */
const NAME_LENGTH_MAX = 100;
/** More threads than any machine this runs on has; a larger number is a slip. */
const THREADS_MAX = 1024;

const HUB_REFERENCE = /^hf:\/\/[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*(@[^\s@]+)?$/;
const REVISION = /^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]*$/;
const MODEL_EXPECTATION =
  'a path, hf://org/name[@revision], s3://bucket/prefix, oci://registry/repository:tag or https://…';
const MODEL_SCHEMES = ['hf', 's3', 'oci', 'http', 'https'];
const REVISION_EXPECTATION = 'a branch, tag or commit of the hub repository';

function nameLike(description: string) {
  return z
    .string()
    .max(NAME_LENGTH_MAX)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)
    .describe(`${description}: letters, digits, ".", "_" and "-"`);
}

const VERSION = /^v?\d+(\.\d+)*([-+.][0-9A-Za-z]+)*$/;
/** The same where `{date}` and `{time}` may stand for digits; see version-rule.ts. */
const VERSION_RULE =
  /^v?(\d|\{date\}|\{time\})+(\.(\d|\{date\}|\{time\})+)*([-+.]([0-9A-Za-z]|\{date\}|\{time\})+)*$/;

const versionLike = (pattern: RegExp, description: string) =>
  z.string().max(NAME_LENGTH_MAX).regex(pattern).describe(description);
const version = versionLike(VERSION, 'a version such as 1.2.0 or 2026.11-rc.1');
const versionRule = versionLike(
  VERSION_RULE,
  'a version such as 1.2.0 or 2026.11-rc.1, or one made by each run: 1.2.{date} or 1.2.{date}.{time}',
);

const model = z
  .string()
  .min(1)
  .max(4096)
  .superRefine((value, context) => {
    const problem = modelProblem(value);
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
  })
  .describe(MODEL_EXPECTATION);

function modelProblem(value: string): string | undefined {
  const scheme = /^([A-Za-z][\w+.-]*):\/\//.exec(value)?.[1];
  if (scheme === undefined) return undefined;
  if (!MODEL_SCHEMES.includes(scheme)) {
    return `${scheme}:// is not supported: expected ${MODEL_EXPECTATION}`;
  }
  if (scheme !== 'hf') return credentialProblem(value);
  if (!HUB_REFERENCE.test(value)) return `expected ${MODEL_EXPECTATION}`;
  const at = value.indexOf('@');
  if (at >= 0 && !REVISION.test(value.slice(at + 1))) {
    return `expected ${REVISION_EXPECTATION} after "@"`;
  }
  return undefined;
}

/** Recipes go into histories, and these are where URLs have what is secret. */
function credentialProblem(uri: string): string | undefined {
  const [authority = ''] = uri.slice(uri.indexOf('://') + 3).split(/[/?#]/, 1);
  if (authority.includes('@')) return 'expected a URI without a user name or password';
  return /^https?:.*[?#]/.test(uri) ? 'expected a URL without a query or a fragment' : undefined;
}

const revision = z.string().max(200).regex(REVISION).describe(REVISION_EXPECTATION);

/** `revision` must say something `model` does not say already. */
function refineRevision(
  value: { model: string; revision?: string | undefined },
  context: z.RefinementCtx,
): void {
  if (value.revision === undefined) return;
  const problem = !value.model.startsWith('hf://')
    ? 'a revision belongs to an hf:// model; a local path has none, so remove it'
    : value.model.includes('@')
      ? 'the revision is given twice, here and after "@" in model; keep one'
      : undefined;
  if (problem !== undefined) {
    context.addIssue({ code: 'custom', path: ['revision'], message: problem });
  }
}

const text = (description: string) => z.string().min(1).max(500).describe(description);

const base = z
  .strictObject({
    model,
    revision: revision.optional(),
    fetch: z
      .enum(['download', 'stream'])
      .optional()
      .describe(
        'download or stream: whether the base is stored here, or its weights are read from where ' +
          'it is while they are merged (default download)',
      ),
    merge_onto: z
      .enum(MERGE_ONTO)
      .optional()
      .describe(
        'original, dequantized or simulated_nf4, the weights that the adapter is merged onto (a ' +
          'quantised base needs dequantized; simulated_nf4 is a 16-bit base as NF4 would make it)',
      ),
  })
  .superRefine(refineRevision)
  .describe('a mapping with the base model: {model, revision, fetch, merge_onto}');

const adapter = z
  .strictObject({
    id: nameLike('a short name of the adapter'),
    model,
    revision: revision.optional(),
    weight: z
      .number()
      .min(-WEIGHT_MAX)
      .max(WEIGHT_MAX)
      .refine((value) => value !== 0, {
        message: 'a weight of 0 adds nothing: leave the adapter out',
      })
      .optional()
      .describe(
        `a number from -${WEIGHT_MAX} to ${WEIGHT_MAX} and not 0, times which the adapter is added ` +
          '(default 1)',
      ),
    density,
    training_run: text('the name of the training run, for the records').optional(),
    version: version.optional(),
  })
  .superRefine(refineRevision)
  .describe('a mapping with one adapter: {id, model, …}');

const merge = z
  .strictObject({
    dtype: z
      .enum(['bfloat16', 'float16', 'float32'])
      .optional()
      .describe('bfloat16, float16 or float32; without it every tensor keeps its dtype'),
    max_shard_size: size.optional(),
    threads: z
      .int()
      .min(1)
      .max(THREADS_MAX)
      .optional()
      .describe(`a whole number of threads from 1 to ${THREADS_MAX}`),
    memory_budget: size.optional(),
  })
  .describe('a mapping with merge options: {dtype, max_shard_size, threads, memory_budget}');

/** What of a recipe decides how adapters are combined. */
interface RecipeShape {
  readonly adapters: readonly z.infer<typeof adapter>[];
  readonly combination?: { readonly method: string } | undefined;
}

export const recipeSchema = z
  .strictObject({
    name: nameLike('the name of the release'),
    version: versionRule,
    base,
    adapters: z
      .array(adapter)
      .min(1)
      .max(ADAPTERS_MAX)
      .describe(`a list of 1 to ${ADAPTERS_MAX} adapters`),
    combination: combination.optional(),
    merge: merge.optional(),
    convert: convert.optional(),
    evaluate: evaluate.optional(),
    approval: approval.optional(),
    sign: sign.optional(),
    archive_adapters: z
      .boolean()
      .optional()
      .describe(
        'true or false: whether each release carries its adapters, so that it can be merged again ' +
          '(default true)',
      ),
    publish: publish.optional(),
  })
  .superRefine(refineCombination)
  .superRefine(refineParameters)
  .superRefine(refineEvaluation)
  .superRefine(refineTargets)
  .superRefine(refineStreams)
  .describe('a mapping with name, version, base and adapters');

/** Only what is elsewhere can be streamed, and only while it is merged. */
function refineStreams(
  { base }: { readonly base: { readonly model: string; readonly fetch?: string | undefined } },
  context: z.RefinementCtx,
): void {
  if (base.fetch !== 'stream' || /^(hf|s3|https?):\/\//.test(base.model)) return;
  const message = 'stream is for bases at hf://, s3:// or https://; leave fetch out';
  context.addIssue({ code: 'custom', path: ['base', 'fetch'], message });
}

/** Several adapters need a method and ids that differ; `sequential` takes no weights. */
function refineCombination({ adapters, combination }: RecipeShape, context: z.RefinementCtx): void {
  if (adapters.length > 1 && combination === undefined) {
    const message =
      'there are several adapters, and nothing says how to combine them: add "combination: ' +
      '{method: linear}" (the sum of all, each times its weight) or sequential (one after the ' +
      'other)';
    context.addIssue({ code: 'custom', path: ['adapters'], message });
  }
  for (const [index, { id, weight }] of adapters.entries()) {
    if (adapters.findIndex((other) => other.id === id) < index) {
      const message = `two adapters have the id "${id}"; give each an id of its own`;
      context.addIssue({ code: 'custom', path: ['adapters', index, 'id'], message });
    }
    if (weight !== undefined && combination?.method === 'sequential') {
      const message = 'sequential takes no weights: leave it out, or combine by linear';
      context.addIssue({ code: 'custom', path: ['adapters', index, 'weight'], message });
    }
  }
}

export type RecipeDocument = z.infer<typeof recipeSchema>;

/** The part of a JSON Schema that errors are made from. */
export interface SchemaNode {
  type?: string;
  description?: string;
  properties?: Readonly<Record<string, SchemaNode>>;
  items?: SchemaNode;
  /** Of a mapping whose keys are the user's: what stands behind each. */
  additionalProperties?: SchemaNode | boolean;
  enum?: readonly unknown[];
}

/** The schema as JSON Schema, which editors use to complete and check a recipe. */
export function recipeJsonSchema(): SchemaNode {
  return {
    ...z.toJSONSchema(recipeSchema, { io: 'input' }),
    title: 'weldline recipe',
  } as SchemaNode;
}
