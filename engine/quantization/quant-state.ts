import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { DTYPE_BY_TORCH_NAME, type MergeDtype } from '../safetensors/dtype.ts';
import { problemsOf } from '../schema-problems.ts';

/** The block sizes that bitsandbytes has kernels for. */
const blockSize = z.literal([32, 64, 128, 256, 512, 1024, 2048, 4096]);

const schema = z.object({
  quant_type: z.enum(['nf4', 'fp4']),
  blocksize: blockSize,
  dtype: z.enum(['bfloat16', 'float16', 'float32']),
  shape: z.array(z.int().positive()).min(1).max(8),
});

const nestedSchema = z.object({
  nested_blocksize: blockSize,
  nested_dtype: z.literal('float32'),
  nested_offset: z.number(),
});

/** What `quant_state.bitsandbytes__*` says of a weight. */
export interface QuantState {
  readonly scheme: 'nf4' | 'fp4';
  readonly blockSize: number;
  readonly dtype: MergeDtype;
  readonly shape: readonly number[];
  /** Set if the block maxima are quantised themselves. */
  readonly nested: { readonly blockSize: number; readonly offset: number } | undefined;
}

/**
 * Reads the JSON that bitsandbytes keeps in the bytes of a tensor (`QuantState.as_dict`).
 * @param where the tensor, for errors
 * @throws WeldlineError `checkpoint.bad-quantization`
 */
export function parseQuantState(bytes: Uint8Array, where: string): QuantState {
  let json: unknown;
  try {
    json = parseJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw badState(where, 'is not JSON', error);
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) throw badState(where, `has ${problemsOf(parsed.error)}`, parsed.error);
  const { quant_type, blocksize, dtype, shape } = parsed.data;
  const state = {
    scheme: quant_type,
    blockSize: blocksize,
    dtype: DTYPE_BY_TORCH_NAME[dtype],
    shape,
  };
  if (!Object.hasOwn(json as object, 'nested_blocksize')) return { ...state, nested: undefined };
  const nested = nestedSchema.safeParse(json);
  if (!nested.success) throw badState(where, `has ${problemsOf(nested.error)}`, nested.error);
  const { nested_blocksize, nested_offset } = nested.data;
  return { ...state, nested: { blockSize: nested_blocksize, offset: nested_offset } };
}

function badState(where: string, problem: string, cause: unknown): WeldlineError {
  return new WeldlineError(
    'checkpoint.bad-quantization',
    `${where} ${problem}. Restore the checkpoint as bitsandbytes saved it.`,
    { cause },
  );
}
