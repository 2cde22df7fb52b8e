import { z } from 'zod';
import { natural, tensorReference } from './reference-schema.ts';

/** A matrix, whole or as the product of two. */
const matrix = z.object({ a: tensorReference, b: tensorReference.optional() });
const product = matrix.required();

const shared = {
  adapter: z.string(),
  module: z.string(),
  /** How many of the tensor's `deltas` come before it. */
  after: natural,
};

/** `x += scaling · (first.a first.b) ∘ (second.a second.b)` (LoHa). */
const hadamard = z.object({
  ...shared,
  kind: z.literal('hadamard'),
  first: product,
  second: product,
  scaling: z.number(),
});

/** `x += scaling · left ⊗ right` (LoKr). */
const kronecker = z.object({
  ...shared,
  kind: z.literal('kronecker'),
  left: matrix,
  right: matrix,
  scaling: z.number(),
});

/** Rows or columns of x are multiplied by numbers ((IA)³); a bias is a matrix [1, out]. */
const scale = z.object({
  ...shared,
  kind: z.literal('scale'),
  vector: tensorReference,
  along: z.enum(['rows', 'columns']),
});

/**
 * `x = x Rᵀ`, or `x = x R` for outputs (of an embedding), with R block-diagonal (OFT). A block is made
 * from the skew-symmetric matrix Q whose upper triangle, row after row, is a row of `blocks` (one row
 * for all blocks, or one each): `(I + Q)⁻¹ (I − Q)`, or the first terms of its Neumann series.
 */
const rotation = z.object({
  ...shared,
  kind: z.literal('rotation'),
  blocks: tensorReference,
  size: natural.positive(),
  ofOutputs: z.boolean(),
  neumannTerms: natural.positive().optional(),
  /** The largest Frobenius norm of Q: a larger one is scaled down to it. */
  radius: z.number().positive().optional(),
});

/** A step beside `deltas` in making a weight x, on what the steps before it made. */
export const plannedChange = z.discriminatedUnion('kind', [hadamard, kronecker, scale, rotation]);
