import type { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { problemsOf } from '../schema-problems.ts';

/**
 * Checks a `quantization_config`.
 * @throws WeldlineError `checkpoint.bad-quantization`
 */
export function parseSettings<Schema extends z.ZodType>(
  where: string,
  schema: Schema,
  settings: unknown,
): z.infer<Schema> {
  const parsed = schema.safeParse(settings);
  if (parsed.success) return parsed.data;
  throw new WeldlineError(
    'checkpoint.bad-quantization',
    `${where}/config.json: quantization_config has ${problemsOf(parsed.error)}. Restore the ` +
      'checkpoint as it was published.',
    { cause: parsed.error },
  );
}
