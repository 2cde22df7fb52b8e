import type { ConversionStep, GgufAdapterStep, GgufStep, IntegerStep } from './conversion-step.ts';
import type { Conversion, ConvertOptions } from './convert-options.ts';
import { convertAdapter } from './gguf/convert-adapter.ts';
import { convertToGguf } from './gguf/convert-to-gguf.ts';
import { convertToIntegers } from './integer/convert-to-integers.ts';

/**
 * Makes the files of one step, checks them, and keeps them; what is finished already is not made
 * again. Safe to call again after any failure.
 *
 * @throws WeldlineError `convert.check-failed` when the files are not what they should be, and then
 *   none is kept; `tool.*` about the programs, `disk.*`
 */
export async function convert(options: ConvertOptions): Promise<Conversion> {
  if (isFor(options, 'gguf')) return await convertToGguf(options);
  if (isFor(options, 'gguf-adapter')) return await convertAdapter(options);
  return await convertToIntegers(options as ConvertOptions<IntegerStep>);
}

type StepOf = { gguf: GgufStep; 'gguf-adapter': GgufAdapterStep };

function isFor<Kind extends keyof StepOf>(
  options: ConvertOptions<ConversionStep>,
  kind: Kind,
): options is ConvertOptions<StepOf[Kind]> {
  return options.step.kind === kind;
}
