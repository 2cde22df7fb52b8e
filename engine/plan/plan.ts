import { z } from 'zod';
import { canonicalJson, sha256Of } from '../canonical-json.ts';
import { WeldlineError } from '../errors.ts';
import { isDtype, type TorchDtype } from '../safetensors/dtype.ts';
import type { Combination } from './combination.ts';

/**
 * Version of everything that decides output bytes: layout rules, arithmetic, edits. It changes when
 * the same inputs would give other bytes, and plans of another version are not resumed.
 */
export const ENGINE_FORMAT = 1;

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const natural = z.number().int().nonnegative();
const dtype = z.string().refine(isDtype);

/** Names of files in an output: safe on every file system, and never a way out of its directory. */
export const PLAIN_PATH = /^[A-Za-z0-9_.-][A-Za-z0-9_. -]*$/;
const plainPath = z.string().regex(PLAIN_PATH);

const inputFile = z.object({ path: z.string(), size: natural, sha256: digest });

/** A tensor in an input: `input` is `base` or the id of an adapter. */
const tensorReference = z.object({
  input: z.string(),
  file: z.string(),
  offset: natural,
  byteLength: natural,
  dtype,
  shape: z.array(natural),
});

const blockSize = natural.positive();

/**
 * 4-bit codes, two to a byte, each times the absolute maximum of its block of the flattened weight.
 * The maxima may be quantised themselves, by a table of 256 values.
 */
const blockQuantization = z.object({
  scheme: z.enum(['nf4', 'fp4']),
  /** What the values are rounded to before anything is added. */
  dtype: z.enum(['BF16', 'F16', 'F32']),
  blockSize,
  absmax: tensorReference,
  nested: z
    .object({ blockSize, offset: z.number(), absmax: tensorReference, map: tensorReference })
    .optional(),
});

/** LLM.int8: integers, each times the absolute maximum of its row and 1 / 127. */
const rowQuantization = z.object({
  scheme: z.literal('int8'),
  dtype: z.literal('F32'),
  scales: tensorReference,
});

/** A weight as stored, and if it is quantised, what its values are made from. */
const tensorSource = tensorReference.extend({
  quantization: z.discriminatedUnion('scheme', [blockQuantization, rowQuantization]).optional(),
});

/**
 * `W += scaling · L R` with L [rows, rank] and R [rank, columns]: for a weight stored [out, in] they
 * are B and A; for one stored [in, out] (`transposed`: Conv1D, embeddings), Aᵀ and Bᵀ. A bias is a
 * matrix [1, out]: R is the bias that B has, rank is 1 and L the number 1.
 */
const delta = z.object({
  adapter: z.string(),
  module: z.string(),
  a: tensorReference,
  /** Absent for a bias. */
  b: tensorReference.optional(),
  /** DoRA, for a weight stored [out, in]: every row is scaled to this length at the end. */
  magnitude: tensorReference.optional(),
  rank: natural,
  alpha: z.number(),
  /** What the product is multiplied by: the adapter's own scaling times its weight. */
  scaling: z.number(),
  transposed: z.boolean(),
});

/** Rows that take the place of a tensor's, as the last step: row `indices[i]` is row i of `from`. */
const tokens = z.object({ from: tensorReference, indices: z.array(natural) });

const plannedTensor = z.object({
  name: z.string(),
  dtype,
  shape: z.array(natural),
  /** Absolute byte offset in the output shard. */
  offset: natural,
  byteLength: natural,
  /** Where the weight comes from: the base, or an adapter that replaces it. */
  from: tensorSource,
  delta: delta.optional(),
  /** Of the adapters after the first that adds to this tensor; all are added before one rounding. */
  moreDeltas: z.array(delta).nonempty().optional(),
  tokens: tokens.optional(),
});

const plannedShard = z.object({
  file: plainPath,
  size: natural,
  tensors: z.array(plannedTensor),
});

/** A change of one value of config.json; null removes it. */
const configEdit = z.object({
  path: z.array(z.string()),
  value: z.union([z.boolean(), z.string(), z.number(), z.null()]),
});

const sideFile = z.object({ input: z.string(), path: plainPath, size: natural, sha256: digest });

const inputSchema = z.object({
  /** `base`, or the id of an adapter. */
  id: z.string(),
  files: z.array(inputFile),
});

const planSchema = z.object({
  format: z.literal('weldline.plan'),
  engineFormat: z.literal(ENGINE_FORMAT),
  options: z.object({
    dtype: z.enum(['bfloat16', 'float16', 'float32']).optional(),
    shardBytesMax: natural.optional(),
    mergeOnto: z.enum(['original', 'dequantized']).optional(),
    /** Absent for one adapter of weight 1. All methods are this sum: the plan is the same. */
    combination: z.object({ method: z.literal('linear'), weights: z.array(z.number()) }).optional(),
  }),
  /** The base first, then the adapters. */
  inputs: z.array(inputSchema),
  rules: z.array(z.object({ adapter: z.string(), rule: z.string() })),
  shards: z.array(plannedShard),
  configEdits: z.array(configEdit),
  sideFiles: z.array(sideFile),
  warnings: z.array(z.string()),
});

/**
 * Everything about a merge that is decided before a weight is read. Pure data, the same on every
 * machine: paths are relative to the inputs, and inputs are known by the digests of their files.
 */
export type Plan = z.infer<typeof planSchema>;
export type PlannedShard = z.infer<typeof plannedShard>;
export type PlannedTensor = z.infer<typeof plannedTensor>;
export type PlannedDelta = z.infer<typeof delta>;
export type TensorReference = z.infer<typeof tensorReference>;
export type TensorSource = z.infer<typeof tensorSource>;
export type BlockQuantization = z.infer<typeof blockQuantization>;
export type RowQuantization = z.infer<typeof rowQuantization>;
export type ConfigEdit = z.infer<typeof configEdit>;
export type SideFile = z.infer<typeof sideFile>;
export type InputFile = z.infer<typeof inputFile>;

/** A file of an input whose content is not known, only how large it is. */
export type UnreadFile = Omit<InputFile, 'sha256'>;
export type UnreadSideFile = Omit<SideFile, 'sha256'>;

/**
 * A plan as far as headers tell. It lacks the digests of its files, so it has no digest of its own
 * and nothing that merges takes it: that is a `Plan`.
 */
export type PlanPreview = Omit<Plan, 'inputs' | 'sideFiles'> & {
  readonly inputs: readonly { readonly id: string; readonly files: readonly UnreadFile[] }[];
  readonly sideFiles: readonly UnreadSideFile[];
};

export interface MergeOptions {
  /** Dtype of every floating-point tensor of the output; by default each keeps its own. */
  readonly dtype?: TorchDtype | undefined;
  /** Largest size of an output shard in bytes; by default the base's files are kept. */
  readonly shardBytesMax?: number | undefined;
  /** Which weights the adapter is merged onto; must be given where the base is quantised. */
  readonly mergeOnto?: MergeOnto | undefined;
  /** How adapters are combined; must be given where there are several. */
  readonly combination?: Combination | undefined;
}

/** Of a weight's magnitude: anything larger is a slip. */
export const WEIGHT_MAX = 1000;

/** Far more adapters than anyone merges at once, and far fewer than the kernel has room for. */
export const ADAPTERS_MAX = 32;

/** Everything that is added to a tensor, in the order of the adapters. */
export function deltasOf({
  delta,
  moreDeltas = [],
}: Pick<PlannedTensor, 'delta' | 'moreDeltas'>): readonly PlannedDelta[] {
  return delta === undefined ? [] : [delta, ...moreDeltas];
}

/**
 * The weights as they were published, or what a quantised base dequantises to: those that a QLoRA
 * adapter saw while it was trained.
 */
export type MergeOnto = 'original' | 'dequantized';

/** Every tensor that a weight's values are read from. */
export function sourceReferences(from: TensorSource): TensorReference[] {
  const { quantization } = from;
  if (quantization === undefined) return [from];
  if (quantization.scheme === 'int8') return [from, quantization.scales];
  const { absmax, nested } = quantization;
  return [from, absmax, ...(nested === undefined ? [] : [nested.absmax, nested.map])];
}

/** The text of a plan's file: canonical JSON, whose SHA-256 is the plan's digest. */
export function formatPlan(plan: Plan): string {
  return canonicalJson(plan);
}

/**
 * What resuming is keyed by: covers the inputs' digests, the options and the engine format. Takes a
 * second for the largest models: take it once, and hand it on.
 */
export function planDigest(plan: Plan): string {
  return sha256Of(formatPlan(plan));
}

/**
 * Reads a plan back from its file.
 * @param digest the plan's, which the text must have
 * @param where the file, for errors
 * @throws WeldlineError `plan.invalid`
 */
export function parsePlan(text: string, digest: string, where: string): Plan {
  if (sha256Of(text) !== digest) {
    throw new WeldlineError(
      'plan.invalid',
      `${where} is not the plan it was written as. Delete it and plan again.`,
    );
  }
  try {
    return planSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new WeldlineError(
      'plan.invalid',
      `${where} is not a plan of this version of weldline. Delete it and plan again.`,
      { cause: error },
    );
  }
}
