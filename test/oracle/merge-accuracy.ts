import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelFiles } from '../../engine/model-files.ts';
import { readCheckpoint } from '../../engine/safetensors/checkpoint.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { decodeTensor, type FloatDtypeName } from '../doubles/decode-tensor.ts';
import { isRoundingOf, mergeInFloat64 } from '../doubles/float-merge.ts';
import { type LoadedTensor, loadTensors } from '../golden/golden-case.ts';

/** Directories. The adapter is a plain LoRA: one rank, one scaling, Linear layers only. */
export interface MergesOfOneAdapter {
  readonly base: string;
  readonly adapter: string;
  readonly ours: string;
  readonly peft: string;
}

/** How two merges relate to `W + s·B·A` in float64, over all elements of the merged weights. */
export interface MergeAccuracy {
  elements: number;
  differing: number;
  /**
   * Differing elements of which either is not the rounding of what float32 sums can be. Two that
   * are lie on both sides of a rounding boundary that is as near to the exact value as float32 can
   * tell, or the exact value is nearly zero beside the weight, from which it came by cancellation.
   */
  unexplained: number;
  oursMeanError: number;
  peftMeanError: number;
}

interface Weights {
  readonly base: Float64Array;
  readonly ours: Float64Array;
  readonly peft: Float64Array;
  readonly dtype: FloatDtypeName;
}

export async function measureAccuracy(merges: MergesOfOneAdapter): Promise<MergeAccuracy> {
  const adapter = await loadTensors(merges.adapter, ['adapter_model.safetensors']);
  const config = await readFile(join(merges.adapter, 'adapter_config.json'), 'utf8');
  const { r, lora_alpha } = JSON.parse(config) as { r: number; lora_alpha: number };
  const [readBase, readOurs, readPeft] = await Promise.all(
    [merges.base, merges.ours, merges.peft].map(openTensors),
  );
  const sums: MergeAccuracy = {
    elements: 0,
    differing: 0,
    unexplained: 0,
    oursMeanError: 0,
    peftMeanError: 0,
  };
  for (const [name, a] of adapter) {
    const target = /^base_model\.model\.(.*)\.lora_A\.weight$/.exec(name)?.[1];
    if (target === undefined) continue;
    const b = adapter.get(`base_model.model.${target}.lora_B.weight`) as LoadedTensor;
    const weight = `${target}.weight`;
    const base = await readBase?.(weight);
    const ours = await readOurs?.(weight);
    const peft = await readPeft?.(weight);
    if (base === undefined || ours === undefined || peft === undefined) {
      throw new Error(`not every checkpoint has ${weight}`);
    }
    const { dtype } = ours;
    const weights = { base: base.values, ours: ours.values, peft: peft.values, dtype };
    addTensor(sums, weights, a, b, lora_alpha / r);
  }
  sums.oursMeanError /= sums.elements;
  sums.peftMeanError /= sums.elements;
  return sums;
}

function addTensor(
  sums: MergeAccuracy,
  { base, ours, peft, dtype }: Weights,
  a: LoadedTensor,
  b: LoadedTensor,
  scaling: number,
): void {
  const rights = decodeTensor(a.bytes, a.dtype as FloatDtypeName);
  const lefts = decodeTensor(b.bytes, b.dtype as FloatDtypeName);
  const [rank = 0, columns = 0] = a.shape;
  const product = new Float64Array(columns);
  for (let row = 0; row * columns < base.length; row++) {
    const left = lefts.subarray(row * rank, (row + 1) * rank);
    product.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = left[k] ?? Number.NaN;
      for (let column = 0; column < columns; column++) {
        product[column]! += factor * rights[k * columns + column]!;
      }
    }
    for (let column = 0; column < columns; column++) {
      const place = row * columns + column;
      const value = base[place]! + scaling * product[column]!;
      sums.oursMeanError += Math.abs(ours[place]! - value);
      sums.peftMeanError += Math.abs(peft[place]! - value);
      if (ours[place] === peft[place]) continue;
      sums.differing++;
      const right = Float64Array.from(left, (_, k) => rights[k * columns + column]!);
      const element = mergeInFloat64(base[place]!, left, right, scaling);
      const both = [ours[place]!, peft[place]!];
      if (!both.every((stored) => isRoundingOf(stored, element, dtype))) sums.unexplained++;
    }
  }
  sums.elements += base.length;
}

type ReadTensor = (
  name: string,
) => Promise<{ readonly values: Float64Array; readonly dtype: FloatDtypeName } | undefined>;

async function openTensors(directory: string): Promise<ReadTensor> {
  const files: ModelFiles = await openModelDirectory(directory);
  const { tensors } = await readCheckpoint(files);
  return async (name) => {
    const tensor = tensors.get(name);
    if (tensor === undefined) return undefined;
    const source = await files.open(tensor.file);
    try {
      const dtype = tensor.dtype as FloatDtypeName;
      const bytes = await source.read(tensor.offset, tensor.byteLength);
      return { values: decodeTensor(bytes, dtype), dtype };
    } finally {
      await source.close();
    }
  };
}
