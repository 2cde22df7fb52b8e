import { z } from 'zod';
import { isDtype } from '../safetensors/dtype.ts';
import { plannedChange } from './change-schema.ts';
import { MERGE_ONTO } from './merge-onto-choices.ts';
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

/** The dtype that values are rounded to before anything is added. */
const valueDtype = z.enum(['BF16', 'F16', 'F32']);

/**
 * Integers packed into words of 32 bits, each less its group's zero point and times its scale: GPTQ
 * packs along the input, [in / n, out], AWQ along the output, [in, out / n]. The weight is [out, in].
 */
const packedQuantization = z.object({
  scheme: z.enum(['gptq', 'awq']),
  dtype: valueDtype,
  bits: z.literal([4, 8]),
  groupSize: blockSize,
  /** What stored zero points lack. */
  zeroOffset: z.literal([0, 1]),
  /** [groups, out / n], packed along the output. */
  zeros: tensorReference,
  /** [groups, out] */
  scales: tensorReference,
  /** The group of each input; absent where they follow one another. */
  groups: tensorReference.optional(),
});

/** FP8 (E4M3), each times the scale of its block of rows and columns. */
const fp8Quantization = z.object({
  scheme: z.literal('fp8'),
  dtype: valueDtype,
  blockRows: natural.positive(),
  blockColumns: natural.positive(),
  scales: tensorReference,
});

/** FP4 (E2M1), [E, out, in / 32, 16], times powers of two [E, out, in / 32]; the weight is [E, in, out]. */
const mxfp4Quantization = z.object({
  scheme: z.literal('mxfp4'),
  dtype: valueDtype,
  scales: tensorReference,
});

/** A weight that is not quantised, taken as what bitsandbytes' NF4 would make of it. */
const simulatedQuantization = z.object({
  scheme: z.literal('simulated_nf4'),
  dtype: valueDtype,
  /** Whether blocks go along the columns of what is stored: a Conv1D. */
  transposed: z.boolean(),
});

/** A weight as stored, and if it is quantised, what its values are made from. */
const tensorSource = tensorReference.extend({
  quantization: z
    .discriminatedUnion('scheme', [
      blockQuantization,
      rowQuantization,
      packedQuantization,
      fp8Quantization,
      mxfp4Quantization,
      simulatedQuantization,
    ])
    .optional(),
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
  /** Whether the magnitude is of columns; of rows if absent. */
  byColumns: z.literal(true).optional(),
  /** Numbers that the rows of A are multiplied by, rounded to float32, before anything else. */
  rankScale: tensorReference.optional(),
  /** The same of B. A and B may then have more columns and rows than the module. */
  outScale: tensorReference.optional(),
  rank: natural,
  alpha: z.number(),
  /** What the product is multiplied by: the adapter's own scaling, in a sum times its weight. */
  scaling: z.number(),
  transposed: z.boolean(),
  /** Rows of the weight that it is added to, as a matrix of all dimensions but the last; or all. */
  rows: z.object({ begin: natural, count: natural.positive() }).optional(),
  /** Where transposed: the first column of A that belongs to these rows; 0 if absent. */
  aColumn: natural.optional(),
  /** The columns of `b` that are B's: one expert's. All if absent. */
  bColumns: z.object({ begin: natural, step: natural.positive() }).optional(),
});

/**
 * How the deltas of a tensor are combined, where they are not simply added: the factors of all become
 * those of one delta, whose scaling is 1 (`factors/combine-factors.ts`). The others are PEFT's ways.
 */
const combined = z.object({
  method: z.enum(['svd', 'peft_linear', 'peft_ties', 'peft_magnitude_prune']),
  /** Of the delta that results. */
  rank: natural.positive(),
  /** The share of each factor's values that is kept. */
  density: z.number().positive().max(1).optional(),
  majoritySign: z.enum(['total', 'frequency']).optional(),
});

/**
 * How deltas are combined that are not simply added up (`combine-rows.ts`); `scaling` is then each
 * adapter's own.
 */
const tensorCombination = z.object({
  method: z.enum(['ties', 'dare_linear', 'dare_ties', 'magnitude_prune']),
  /** With DARE. */
  seed: natural.optional(),
  /** With TIES. */
  majoritySign: z.enum(['total', 'frequency']).optional(),
  /** One for each delta, in their order. */
  parts: z.array(z.object({ weight: z.number(), density: z.number() })),
});

/**
 * Rows that take the place of a tensor's, as the last step: row `indices[i]` is row i of `from`. Of
 * several adapters, which have no index in common.
 */
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
  /** Of all adapters that add to this tensor, in their order: combined before one rounding. */
  deltas: z.array(delta).nonempty().optional(),
  /** Set if `deltas` are combined into one first, by their factors. */
  combined: combined.optional(),
  /** Set if they are combined element by element. */
  combination: tensorCombination.optional(),
  /** What is no low-rank product, in its order. */
  changes: z.array(plannedChange).nonempty().optional(),
  tokens: z.array(tokens).nonempty().optional(),
});

const plannedShard = z.object({
  file: plainPath,
  size: natural,
  tensors: z.array(plannedTensor),
});

const scalar = z.union([z.boolean(), z.string(), z.number()]);

/** A change of one value of config.json; null removes it. */
const configEdit = z.object({
  path: z.array(z.string()),
  value: z.union([z.boolean(), z.string(), z.number(), z.null(), z.array(scalar)]),
});

const sideFile = z.object({ input: z.string(), path: plainPath, size: natural, sha256: digest });

const inputSchema = z.object({
  /** `base`, or the id of an adapter. */
  id: z.string(),
  files: z.array(inputFile),
});

/** How the names of an adapter were bound, and its format where that is not PEFT's safetensors. */
export const appliedRule = z.object({
  adapter: z.string(),
  rule: z.string(),
  format: z.enum(['peft-pickle', 'mlx', 'kohya']).optional(),
});

export const planSchema = z.object({
  format: z.literal('weldline.plan'),
  engineFormat: z.literal(ENGINE_FORMAT),
  options: z.object({
    dtype: z.enum(['bfloat16', 'float16', 'float32']).optional(),
    shardBytesMax: natural.optional(),
    mergeOnto: z.enum(MERGE_ONTO).optional(),
    /**
     * Absent for one adapter of weight 1. Methods that are the same sum are all called linear;
     * sequential is one that is no sum: a tensor is scaled or rotated in turn.
     */
    combination: z
      .object({
        method: z.enum([
          'linear',
          'sequential',
          ...combined.shape.method.options,
          ...tensorCombination.shape.method.options,
        ]),
        weights: z.array(z.number()),
        parameters: z
          .object({
            rank: natural.optional(),
            density: z.number().optional(),
            densities: z.array(z.number()).optional(),
            seed: natural.optional(),
            majoritySign: z.enum(['total', 'frequency']).optional(),
          })
          .optional(),
      })
      .optional(),
  }),
  /** The base first, then the adapters. */
  inputs: z.array(inputSchema),
  rules: z.array(appliedRule),
  shards: z.array(plannedShard),
  configEdits: z.array(configEdit),
  sideFiles: z.array(sideFile),
  warnings: z.array(z.string()),
  /** How far a 16-bit base is from what NF4 makes of it, where that was a choice; on samples. */
  nf4Distance: z.object({ relative: z.number(), tensors: natural, values: natural }).optional(),
});

/**
 * Everything about a merge that is decided before a weight is read. Pure data, the same on every
 * machine: paths are relative to the inputs, and inputs are known by the digests of their files.
 */
export type Plan = z.infer<typeof planSchema>;
export type PlannedShard = z.infer<typeof plannedShard>;
export type PlannedTensor = z.infer<typeof plannedTensor>;
export type PlannedDelta = z.infer<typeof delta>;
export type CombinedDeltas = z.infer<typeof combined>;
export type TensorCombination = z.infer<typeof tensorCombination>;
export type TokenRows = z.infer<typeof tokens>;
export type PlannedChange = z.infer<typeof plannedChange>;
export type TensorReference = z.infer<typeof tensorReference>;
export type TensorSource = z.infer<typeof tensorSource>;
export type BlockQuantization = z.infer<typeof blockQuantization>;
export type RowQuantization = z.infer<typeof rowQuantization>;
export type PackedQuantization = z.infer<typeof packedQuantization>;
export type Fp8Quantization = z.infer<typeof fp8Quantization>;
export type Mxfp4Quantization = z.infer<typeof mxfp4Quantization>;
export type SimulatedQuantization = z.infer<typeof simulatedQuantization>;
export type ConfigEdit = z.infer<typeof configEdit>;
export type SideFile = z.infer<typeof sideFile>;
export type InputFile = z.infer<typeof inputFile>;
