import { z } from 'zod';
import { isDtype } from '../safetensors/dtype.ts';

export const natural = z.number().int().nonnegative();

/** A tensor in an input: `input` is `base` or the id of an adapter. */
export const tensorReference = z.object({
  input: z.string(),
  file: z.string(),
  offset: natural,
  byteLength: natural,
  dtype: z.string().refine(isDtype),
  shape: z.array(natural),
});
