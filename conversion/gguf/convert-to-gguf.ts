import { WeldlineError } from '../../engine/errors.ts';
import type { GgufStep } from '../conversion-step.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';

export async function convertToGguf(options: ConvertOptions<GgufStep>): Promise<Conversion> {
  throw new WeldlineError('tool.not-found', `${options.step.id} cannot be made yet.`);
}
