import { WeldlineError } from '../../engine/errors.ts';
import type { GgufAdapterStep } from '../conversion-step.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';

export async function convertAdapter(
  options: ConvertOptions<GgufAdapterStep>,
): Promise<Conversion> {
  throw new WeldlineError('tool.not-found', `${options.step.id} cannot be made yet.`);
}
