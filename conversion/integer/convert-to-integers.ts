import { WeldlineError } from '../../engine/errors.ts';
import type { IntegerStep } from '../conversion-step.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';

export async function convertToIntegers(options: ConvertOptions<IntegerStep>): Promise<Conversion> {
  throw new WeldlineError('tool.not-found', `${options.step.id} cannot be made yet.`);
}
