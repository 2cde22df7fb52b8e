import { z } from 'zod';
import { GGUF_TYPE_NAMES, ggufType } from './gguf-types.ts';
import { size } from './size-schema.ts';

/** What a recipe converts the merged checkpoint to. */

/** More conversions than anybody serves; keeps a release's fan-out bounded. */
const CONVERSIONS_MAX = 20;
const SAMPLES_MAX = 100_000;
const SEQUENCE_LENGTH_MAX = 1 << 20;
const GROUP_SIZE_MAX = 1 << 14;

const file = (description: string) => z.string().min(1).max(4096).describe(description);

const imatrix = z
  .strictObject({
    file: file('the path of an importance matrix that llama-imatrix made').optional(),
    calibration: file('the path of text that llama-imatrix makes one of').optional(),
  })
  .superRefine((value, context) => {
    if ((value.file === undefined) !== (value.calibration === undefined)) return;
    const message = 'give either file (an importance matrix) or calibration (text to make one of)';
    context.addIssue({ code: 'custom', message });
  })
  .describe('a mapping {file} or {calibration}');

const gguf = z
  .strictObject({
    quantization: z
      .array(z.enum(GGUF_TYPE_NAMES).describe(`one of ${GGUF_TYPE_NAMES.join(', ')}`))
      .min(1)
      .max(GGUF_TYPE_NAMES.length)
      .describe('a list of GGUF types such as [Q4_K_M, Q8_0, F16]'),
    from: z
      .enum(['F16', 'BF16', 'F32'])
      .optional()
      .describe('F16, BF16 or F32, the file that is quantized (default F16)'),
    imatrix: imatrix.optional(),
    split: size.optional(),
    adapters: z
      .boolean()
      .optional()
      .describe('true, to also make GGUF files of the adapters, where the format can express them'),
  })
  .superRefine(({ quantization, imatrix: given }, context) => {
    for (const [index, name] of quantization.entries()) {
      const problem =
        quantization.indexOf(name) < index
          ? `${name} is given twice; keep one`
          : given === undefined && ggufType(name).needsImatrix
            ? `${name} cannot be made without an importance matrix: add imatrix: {calibration: <text of your own>} or {file: <matrix>}`
            : undefined;
      if (problem === undefined) continue;
      context.addIssue({ code: 'custom', path: ['quantization', index], message: problem });
    }
  })
  .describe('a mapping {quantization, from, imatrix, split, adapters}');

const OWN_DATA =
  'the path of JSONL or text of your own, because which weights matter is decided by what the model ' +
  "will be used for, and nobody else's data says that";

const integerQuantization = z
  .strictObject({
    bits: z
      .union([z.literal(4), z.literal(8)])
      .optional()
      .describe('4 or 8 (default 4)'),
    group_size: z
      .int()
      .min(8)
      .max(GROUP_SIZE_MAX)
      .optional()
      .describe(
        `a whole number from 8 to ${GROUP_SIZE_MAX} that divides the width of every layer (default 128)`,
      ),
    symmetric: z.boolean().optional().describe('true or false (default true)'),
    ignore: z
      .array(z.string().min(1).max(500).describe('a module name, or "re:" and a pattern'))
      .max(1000)
      .optional()
      .describe('a list of modules that stay in 16 bits (default [lm_head])'),
    calibration: file(OWN_DATA),
    samples: z
      .int()
      .min(1)
      .max(SAMPLES_MAX)
      .optional()
      .describe(`a whole number of calibration samples from 1 to ${SAMPLES_MAX} (default 256)`),
    sequence_length: z
      .int()
      .min(8)
      .max(SEQUENCE_LENGTH_MAX)
      .optional()
      .describe(
        `a whole number of tokens from 8 to ${SEQUENCE_LENGTH_MAX} to which samples are cut (default 512)`,
      ),
  })
  .describe(
    'a mapping {bits, group_size, symmetric, ignore, calibration, samples, sequence_length}',
  );

const conversion = z
  .strictObject({
    gguf: gguf.optional(),
    awq: integerQuantization.optional(),
    gptq: integerQuantization.optional(),
  })
  .superRefine((value, context) => {
    if (Object.keys(value).length === 1) return;
    const message = 'expected one of gguf, awq or gptq; begin a new list item for each';
    context.addIssue({ code: 'custom', message });
  })
  .describe('a mapping with one conversion: {gguf}, {awq} or {gptq}');

export const convert = z
  .array(conversion)
  .max(CONVERSIONS_MAX)
  .superRefine((list, context) => {
    const seen = new Set<string>();
    for (const [index, each] of list.entries()) {
      const name = conversionName(each);
      if (name !== undefined && seen.has(name)) {
        const message = `there is ${name} already: give each kind of conversion once`;
        context.addIssue({ code: 'custom', path: [index], message });
      }
      if (name !== undefined) seen.add(name);
    }
  })
  .describe(`a list of up to ${CONVERSIONS_MAX} conversions: {gguf}, {awq} or {gptq}`);

type ConversionDocument = z.infer<typeof conversion>;

/** What may stand in a recipe once: `gguf`, or a method with its bits and group size. */
function conversionName({ gguf: isGguf, awq, gptq }: ConversionDocument): string | undefined {
  if (isGguf !== undefined) return 'gguf';
  const [method, settings] = awq === undefined ? ['gptq', gptq] : ['awq', awq];
  if (settings === undefined) return undefined;
  return `${method} of ${settings.bits ?? 4} bits in groups of ${settings.group_size ?? 128}`;
}
