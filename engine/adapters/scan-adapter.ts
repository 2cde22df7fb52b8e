import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import type { MergeDtype } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { scanValues } from '../safetensors/scan-values.ts';
import type { Adapter } from './adapter.ts';
import { isSame } from './find-twins.ts';
import { tensorsOfChange } from './kinds/module-change.ts';
import type { TensorCopy } from './sort-tensors.ts';

/** Read at once: many small tensors, or a piece of a large one. */
const BLOCK_BYTES = 1024 * 1024;

/**
 * Reads the values of an adapter once, before anything is written.
 *
 * @param source its weight file
 * @returns warnings: modules of which one factor or the scaling is zero change nothing
 * @throws WeldlineError `adapter.non-finite` naming the first tensor that holds Inf or NaN,
 *   `adapter.duplicate-key` for two tensors that should be one
 */
export async function scanAdapter(adapter: Adapter, source: ByteSource): Promise<string[]> {
  for (const copy of adapter.copies) await compareCopy(copy, source);
  const factors = adapter.pairs.flatMap(({ a, b, bias, magnitude, rankScale, outScale }) =>
    [a, b, bias, magnitude, rankScale, outScale].filter((tensor) => tensor !== undefined),
  );
  const ofExperts = adapter.expertPairs.flatMap(({ a, b }) => [a, b]);
  const parts = adapter.changes.flatMap(tensorsOfChange);
  const whole = [...adapter.replacements.values(), ...adapter.tokens.values()];
  // A shared factor is many modules'.
  const all = new Set([...factors, ...ofExperts, ...parts, ...whole]);
  const zero = await scanTensors([...all], source);
  return [...warnOfZeroAlpha(adapter), ...warnOfZeros(adapter, zero)];
}

/** With an alpha of 0 a delta is scaled to nothing, whatever was trained. */
function warnOfZeroAlpha({ id, config, pairs, changes, expertPairs }: Adapter): string[] {
  // DoRA still gives rows their lengths.
  const ofPairs = pairs.filter(({ scaling, magnitude }) => scaling === 0 && !magnitude);
  const ofChanges = changes.filter(({ form }) => 'scaling' in form && form.scaling === 0);
  // Which pattern is for which parameter of experts, their binding tells.
  const isZero = config.loraAlpha === 0 && config.alphaPattern.size === 0;
  const ofExperts = isZero ? expertPairs : [];
  const idle = [...ofPairs, ...ofChanges, ...ofExperts].map(({ module }) => module);
  if (idle.length === 0) return [];
  return [
    `Adapter "${id}" has a strength of 0 in ${idle.length} of its ` +
      `${pairs.length + changes.length + expertPairs.length} modules, so it adds nothing to ` +
      `them (${idle.slice(0, 3).join(', ')}). Check lora_alpha (of MLX: scale) in its configuration.`,
  ];
}

/** @param zero tensors whose values are all zero */
function warnOfZeros(adapter: Adapter, zero: ReadonlySet<TensorEntry>): string[] {
  const replaced = adapter.replacements.size + adapter.tokens.size;
  const isZero = (tensor: TensorEntry | undefined): boolean =>
    tensor !== undefined && zero.has(tensor);
  const idlePairs = adapter.pairs.filter(
    ({ a, b, bias, magnitude, rankScale, outScale }) =>
      [a, b, rankScale, outScale].some(isZero) &&
      (bias === undefined || zero.has(bias)) &&
      magnitude === undefined,
  );
  if (adapter.config.kind.type !== 'LORA') {
    const idleChanges = adapter.changes.filter(({ idleIfZero }) => idleIfZero.some(isZero));
    return idleKind(adapter, [...idlePairs, ...idleChanges]);
  }
  const idleExperts = adapter.expertPairs.filter(({ a, b }) => zero.has(a) || zero.has(b));
  const idle = [...idlePairs, ...idleExperts].map(({ module }) => module);
  const pairCount = adapter.pairs.length + adapter.expertPairs.length;
  if (idle.length === 0) return [];
  // Before training B is zero, but A of an embedding.
  const embedding = idlePairs.some(({ layer }) => layer === 'embedding');
  const factor = embedding ? 'lora_B or lora_embedding_A' : 'lora_B';
  if (idle.length === pairCount && replaced === 0) {
    return [
      `Adapter "${adapter.id}" changes nothing: every ${factor} is zero, as before training. Check ` +
        'that this is the trained adapter.',
    ];
  }
  return [
    `Adapter "${adapter.id}" does not change ${idle.length} of its ${pairCount} ` +
      `modules: their ${factor} is zero (${idle.slice(0, 3).join(', ')}).`,
  ];
}

/** @param idle modules of which a tensor is all zeros, so that they change nothing */
function idleKind(
  { id, config, pairs, changes }: Adapter,
  idle: readonly { readonly module: string }[],
): string[] {
  if (idle.length === 0) return [];
  return [
    `Adapter "${id}" (${config.kind.type}) does not change ${idle.length} of its ` +
      `${pairs.length + changes.length} modules: one of their tensors is all zeros, as before ` +
      `training (${idle
        .slice(0, 3)
        .map(({ module }) => module)
        .join(', ')}). Check that this is ` +
      'the trained adapter.',
  ];
}

async function compareCopy({ of, copy }: TensorCopy, source: ByteSource): Promise<void> {
  if (await isSame(of, copy, source)) return;
  throw new WeldlineError(
    'adapter.duplicate-key',
    `${source.name}: tensors "${of.name}" and "${copy.name}" are two spellings of one, and their ` +
      'values differ. Save the adapter again with PEFT.',
  );
}

/** @returns those of the tensors whose values are all zero */
async function scanTensors(
  tensors: readonly TensorEntry[],
  source: ByteSource,
): Promise<Set<TensorEntry>> {
  const allZero = new Set(tensors);
  const buffer = new Uint8Array(BLOCK_BYTES);
  let block: { begin: number; bytes: Uint8Array } = { begin: 0, bytes: buffer.subarray(0, 0) };
  for (const tensor of tensors.toSorted((a, b) => a.offset - b.offset)) {
    const end = tensor.offset + tensor.byteLength;
    for (let at = tensor.offset; at < end; ) {
      let inBlock = wholeElements(block.begin + block.bytes.length, at, end);
      // Of a pickle, several tensors may be views of the same bytes.
      if (inBlock <= 0 || at < block.begin) {
        const length = Math.min(BLOCK_BYTES, source.size - at);
        block = { begin: at, bytes: await source.read(at, length, buffer) };
        inBlock = wholeElements(at + length, at, end);
      }
      const begin = at - block.begin;
      const piece = block.bytes.subarray(begin, begin + inBlock);
      const { nonFinite, zero } = scanValues(piece, tensor.dtype as MergeDtype);
      if (nonFinite) throw diverged(source, tensor);
      if (!zero) allZero.delete(tensor);
      at += inBlock;
    }
  }
  return allZero;
}

/** Bytes from `at` that are there up to `blockEnd`: to the tensor's end, or of whole elements. */
function wholeElements(blockEnd: number, at: number, end: number): number {
  return blockEnd >= end ? end - at : Math.floor((blockEnd - at) / 4) * 4;
}

function diverged(source: ByteSource, tensor: TensorEntry): WeldlineError {
  return new WeldlineError(
    'adapter.non-finite',
    `${source.name}: tensor "${tensor.name}" holds infinite values or NaN. The training diverged; ` +
      'use an earlier checkpoint. Nothing was written.',
  );
}
