import { z } from 'zod';
import { isDtype } from '../safetensors/dtype.ts';
import { plannedChange } from './change-schema.ts';
import { natural, tensorReference } from './reference-schema.ts';

/**
 * Version of everything that decides output bytes: layout rules, arithmetic, edits. It changes when
 * the same inputs would give other bytes, and plans of another version are not resumed.
 */
export const ENGINE_FORMAT = 1;

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const dtype = z.string().refine(isDtype);

/** Names of files in an output: safe on every file system, and never a way out of its directory. */
export const PLAIN_PATH = /^[A-Za-z0-9_.-][A-Za-z0-9_. -]*$/;
const plainPath = z.string().regex(PLAIN_PATH);

const inputFile = z.object({ path: z.string(), size: natural, sha256: digest });

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
  /**
   * DoRA: once the delta was added, every output of the weight is scaled by this length over the
   * norm that it has in source + delta: a row, or a column if it is stored [in, out].
   */
  magnitude: tensorReference.optional(),
  /** Numbers that the rows of A are multiplied by, rounded to float32, before anything else. */
  rankScale: tensorReference.optional(),
  /** The same of B. A and B may then have more columns and rows than the module. */
  outScale: tensorReference.optional(),
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
  /** Of all adapters that add to this tensor, in their order: added up before one rounding. */
  deltas: z.array(delta).nonempty().optional(),
  /** What is no low-rank product, in its order. */
  changes: z.array(plannedChange).nonempty().optional(),
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

export const planSchema = z.object({
  format: z.literal('weldline.plan'),
  engineFormat: z.literal(ENGINE_FORMAT),
  options: z.object({
    dtype: z.enum(['bfloat16', 'float16', 'float32']).optional(),
    shardBytesMax: natural.optional(),
    mergeOnto: z.enum(['original', 'dequantized']).optional(),
    /**
     * Absent for one adapter of weight 1. All methods are this sum, so the plan is the same, but for
     * what is scaled or rotated in turn: that shows in the order of a tensor's deltas and changes.
     */
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
export type PlannedChange = z.infer<typeof plannedChange>;
export type TensorReference = z.infer<typeof tensorReference>;
export type TensorSource = z.infer<typeof tensorSource>;
export type BlockQuantization = z.infer<typeof blockQuantization>;
export type RowQuantization = z.infer<typeof rowQuantization>;
export type ConfigEdit = z.infer<typeof configEdit>;
export type SideFile = z.infer<typeof sideFile>;
export type InputFile = z.infer<typeof inputFile>;
