import { z } from 'zod';
import type { ModelFiles } from '../model-files.ts';
import type { PackedQuantization } from '../plan/plan.ts';
import type { CheckpointTensor } from '../safetensors/checkpoint.ts';
import type { MergeDtype } from '../safetensors/dtype.ts';
import type { DequantizedCheckpoint } from './bitsandbytes.ts';
import { type QuantizedParts, referTo } from './quantized-parts.ts';
import { parseSettings } from './settings.ts';

const schema = z.looseObject({
  bits: z.int(),
  group_size: z.int(),
  desc_act: z.boolean().nullish(),
  checkpoint_format: z.string().nullish(),
  format: z.string().nullish(),
  is_marlin_format: z.boolean().nullish(),
  pack_dtype: z.string().nullish(),
  /** Other settings for some modules. */
  dynamic: z.record(z.string(), z.unknown()).nullish(),
});

const PART = /\.(qweight|qzeros|scales|g_idx)$/;

/** The dtypes that the values of scales have. */
const SCALE_DTYPES = ['F16', 'BF16', 'F32'] as const;

type Settings = z.infer<typeof schema>;

interface Pending {
  readonly weight: CheckpointTensor;
  readonly groups: CheckpointTensor | undefined;
  readonly zeros: CheckpointTensor;
  readonly quantization: PackedQuantization;
  readonly shape: readonly [outputs: number, inputs: number];
}

/**
 * Binds the packed weights of a GPTQ checkpoint. Reads their group indices, and of the older format
 * their zero points: readers of that do not agree on one of them.
 *
 * Source: AutoGPTQ's `QuantLinear`; GPTQModel's `FORMAT` for the two conventions of zero points.
 *
 * @throws WeldlineError `checkpoint.bad-quantization`, `checkpoint.quantized-base`
 */
export async function bindGptq(
  files: ModelFiles,
  parts: QuantizedParts,
  settings: unknown,
): Promise<DequantizedCheckpoint> {
  const parsed = parseSettings(files.name, schema, settings);
  const zeroOffset = checkSettings(parts, parsed);
  const found: Pending[] = [];
  for (const weight of parts.checkpoint.tensors.values()) {
    if (weight.name.endsWith('.qweight')) found.push(bindOne(parts, weight, parsed, zeroOffset));
  }
  for (const each of found) {
    const { groups, quantization, shape, weight } = each;
    if (groups !== undefined) {
      const isInOrder = await checkGroups(files, parts, groups, parsed, each);
      if (!isInOrder) quantization.groups = referTo(groups);
    }
    if (zeroOffset === 1) await checkZeros(files, parts, each);
    const name = weight.name.replace(/\.qweight$/, '.weight');
    parts.add(weight, { name, dtype: quantization.dtype, shape }, quantization);
  }
  return parts.finish(({ name }) => PART.test(name));
}

/** @returns what stored zero points lack */
function checkSettings(parts: QuantizedParts, settings: Settings): 0 | 1 {
  const { bits, dynamic, is_marlin_format, pack_dtype } = settings;
  const format = settings.checkpoint_format ?? settings.format ?? 'gptq';
  if (bits !== 4 && bits !== 8) throw parts.refuse(`its weights are GPTQ with ${bits} bits`);
  if ((format !== 'gptq' && format !== 'gptq_v2') || is_marlin_format === true) {
    throw parts.refuse(`its weights are GPTQ in the format ${JSON.stringify(format.slice(0, 50))}`);
  }
  if (pack_dtype != null && pack_dtype !== 'int32') {
    throw parts.refuse(`its weights are GPTQ packed in ${JSON.stringify(pack_dtype.slice(0, 50))}`);
  }
  if (Object.keys(dynamic ?? {}).length > 0) {
    throw parts.refuse('its weights are GPTQ with other settings for some modules ("dynamic")');
  }
  return format === 'gptq' ? 1 : 0;
}

function bindOne(
  parts: QuantizedParts,
  weight: CheckpointTensor,
  { bits, group_size, desc_act }: Settings,
  zeroOffset: 0 | 1,
): Pending {
  const stem = weight.name.replace(/\.qweight$/, '');
  parts.check(weight, ['I32']);
  const perWord = 32 / bits;
  const [words, outputs] = weight.shape;
  if (words === undefined || outputs === undefined || weight.shape.length !== 2) {
    throw parts.bad(weight.name, `has shape [${weight.shape.join(', ')}] and is no matrix`);
  }
  const inputs = words * perWord;
  if (outputs % perWord !== 0 || outputs === 0 || inputs === 0) {
    throw parts.bad(weight.name, `has ${outputs} columns, no multiple of ${perWord}`);
  }
  const groupSize = group_size === -1 ? inputs : group_size;
  if (groupSize <= 0) throw parts.bad(weight.name, `is in groups of ${group_size}`);
  const groupCount = Math.ceil(inputs / groupSize);
  const scales = parts.take(`${stem}.scales`, SCALE_DTYPES, [groupCount, outputs]);
  const zeros = parts.take(`${stem}.qzeros`, ['I32'], [groupCount, outputs / perWord]);
  const name = `${stem}.g_idx`;
  // Early checkpoints without act-order have none.
  const isLeftOut = desc_act === false && !parts.checkpoint.tensors.has(name);
  const groups = isLeftOut ? undefined : parts.take(name, ['I32'], [inputs]);
  const quantization: PackedQuantization = {
    ...{ scheme: 'gptq', dtype: scales.dtype as MergeDtype, bits: bits as 4 | 8, groupSize },
    ...{ zeroOffset, zeros: referTo(zeros), scales: referTo(scales) },
  };
  return { weight, groups, zeros, quantization, shape: [outputs, inputs] };
}

/** @returns whether groups follow one another */
async function checkGroups(
  files: ModelFiles,
  parts: QuantizedParts,
  groups: CheckpointTensor,
  { desc_act }: Settings,
  { quantization, shape: [, inputs] }: Pending,
): Promise<boolean> {
  const { groupSize } = quantization;
  const groupOf = new Int32Array((await readWhole(files, groups)).buffer);
  if (groupOf.every((group, input) => group === Math.floor(input / groupSize))) return true;
  const count = Math.ceil(inputs / groupSize);
  const sizes = new Uint32Array(count);
  for (const [input, group] of groupOf.entries()) {
    if (group < 0 || group >= count) {
      throw parts.bad(groups.name, `says group ${group} of input ${input}; there are ${count}`);
    }
    sizes[group]! += 1;
  }
  if (desc_act !== true) {
    throw parts.bad(
      groups.name,
      'does not count groups up, though config.json says that there is no act-order (desc_act)',
    );
  }
  const odd = sizes.findIndex(
    (size, group) => size > groupSize || (size < groupSize && group < count - 1),
  );
  if (odd >= 0)
    throw parts.bad(groups.name, `gives group ${odd} ${sizes[odd]} inputs and not ${groupSize}`);
  return false;
}

/**
 * The older format stores zero points less one. Of the largest that can be stored, some readers make
 * one more, some 0, and some carry into the next.
 */
async function checkZeros(
  files: ModelFiles,
  parts: QuantizedParts,
  { zeros, quantization: { bits } }: Pending,
): Promise<void> {
  const words = new Uint32Array((await readWhole(files, zeros)).buffer);
  const largest = 2 ** bits - 1;
  for (const word of words) {
    for (let shift = 0; shift < 32; shift += bits) {
      if (((word >>> shift) & largest) !== largest) continue;
      throw parts.refuse(
        `"${zeros.name}" holds a zero point of ${largest} less one, which readers of GPTQ ` +
          'understand differently (asymmetric, checkpoint_format "gptq")',
      );
    }
  }
}

/** A copy of its own, aligned. */
async function readWhole(
  files: ModelFiles,
  tensor: CheckpointTensor,
): Promise<Uint8Array<ArrayBuffer>> {
  const source = await files.open(tensor.file);
  try {
    return Uint8Array.from(await source.read(tensor.offset, tensor.byteLength));
  } finally {
    await source.close();
  }
}
