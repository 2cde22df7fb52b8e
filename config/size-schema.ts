import { z } from 'zod';
import { parseSize, SIZE_EXPECTATION } from './parse-size.ts';

/** A size as recipes write it: bytes, or a number with a unit. */
export const size = z
  .union([z.string(), z.int()])
  .superRefine((value, context) => {
    try {
      parseSize(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message });
    }
  })
  .describe(SIZE_EXPECTATION);
