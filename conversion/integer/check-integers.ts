import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { IntegerConversion } from '../../config/release-quality.ts';
import { TensorReader } from '../../engine/insight/tensor-reader.ts';
import { parseJson } from '../../engine/json-text.ts';
import type { ModelFiles } from '../../engine/model-files.ts';
import { type Checkpoint, readCheckpoint } from '../../engine/safetensors/checkpoint.ts';
import { elementCount } from '../../engine/safetensors/dtype.ts';
import { openCheckpointDirectory } from '../checkpoint-directory.ts';
import type { ConversionFindings } from '../conversion-store.ts';
import { checkConfig } from './check-config.ts';
import { checkFailed } from './check-failed.ts';
import { compareModule, compareTensor, type ReadPart } from './compare-weights.ts';
import { findIntegerTensors, type IntegerTensors } from './integer-checkpoint.ts';
import { HEAD, type IgnoredModules, ignoreModules, linearModules } from './integer-modules.ts';
import { readSmoothing, type Smoothing } from './smoothing.ts';

export interface CheckIntegersOptions {
  readonly settings: IntegerConversion;
  /** Directory of the merged checkpoint. */
  readonly merged: string;
  /** Directory of the quantised one. */
  readonly integers: string;
  /** What tools/python/quantize.py recorded of AWQ's scales. */
  readonly scales?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** @param fraction of the modules that have been compared */
  readonly onProgress?: ((fraction: number) => void) | undefined;
}

interface Findings extends Pick<ConversionFindings, 'checks' | 'layerErrors' | 'bitsPerWeight'> {
  /** Inputs of the widest layer that was quantised. */
  readonly inputsMax: number;
}

/** Both checkpoints, and what is known of them. */
interface Compared {
  readonly merged: Checkpoint;
  readonly integers: Checkpoint;
  /** The head may be left out of the file where it is the embedding. */
  readonly isTied: boolean;
  readonly modules: IgnoredModules;
  readonly tensors: ReadonlyMap<string, IntegerTensors>;
  readonly smoothing: ReadonlyMap<string, Smoothing>;
  readonly readMerged: ReadPart;
  readonly readIntegers: ReadPart;
}

/**
 * Reads a quantised checkpoint back and compares all of it with the merged one: every layer that was
 * to be quantised is, with integers that stand for its weights, and all else is as it was.
 *
 * @throws WeldlineError `convert.check-failed`; `checkpoint.*`, `safetensors.*`
 */
export async function checkIntegers(options: CheckIntegersOptions): Promise<Findings> {
  const { settings, signal } = options;
  const files = {
    merged: await openCheckpointDirectory(options.merged),
    integers: await openCheckpointDirectory(options.integers),
  };
  const merged = await readCheckpoint(files.merged);
  const integers = await readCheckpoint(files.integers);
  const shapes = new Map([...merged.tensors].map(([name, { shape }]) => [name, shape]));
  const modules = ignoreModules(linearModules(shapes), settings.ignore);
  const tensors = findIntegerTensors(integers, modules.quantised, settings);
  const config = await readConfig(options.merged);
  checkConfig(await readConfig(options.integers), config, settings, modules);
  const isTied = config['tie_word_embeddings'] === true;
  const smoothing =
    options.scales === undefined
      ? new Map<string, Smoothing>()
      : await readSmoothing(options.scales);

  const reader = new TensorReader(files, signal);
  const readFrom = (input: keyof typeof files): ReadPart => {
    return (tensor, offset, length) => {
      return reader.read({ ...tensor, shape: [...tensor.shape], input }, offset, length);
    };
  };
  const [readMerged, readIntegers] = [readFrom('merged'), readFrom('integers')];
  const compared = {
    ...{ merged, integers, isTied, modules, tensors, smoothing, readMerged, readIntegers },
  };
  try {
    const { same, scaled } = await compareOthers(compared);
    const layerErrors = await compareModules(compared, options);
    return {
      checks: describe(settings, modules, same, scaled),
      layerErrors,
      inputsMax: Math.max(...modules.quantised.map(({ columns }) => columns)),
      bitsPerWeight: bitsPerWeight(files.integers, integers, shapes),
    };
  } finally {
    await reader.close();
  }
}

async function readConfig(directory: string): Promise<Readonly<Record<string, unknown>>> {
  const text = await readFile(join(directory, 'config.json'), 'utf8');
  return parseJson(text) as Record<string, unknown>;
}

async function compareModules(
  { merged, modules, tensors, smoothing, readMerged, readIntegers }: Compared,
  { settings, onProgress }: CheckIntegersOptions,
): Promise<Record<string, number>> {
  const layerErrors: Record<string, number> = {};
  for (const [index, module] of modules.quantised.entries()) {
    const weight = merged.tensors.get(module.tensor);
    const integers = tensors.get(module.name);
    if (weight === undefined || integers === undefined) throw checkFailed(`${module.name} is lost`);
    layerErrors[module.name] = await compareModule({
      ...{ module, weight, integers, settings, readMerged, readIntegers },
      smoothing: smoothing.get(module.name),
    });
    onProgress?.((index + 1) / modules.quantised.length);
  }
  return layerErrors;
}

/** All tensors but those of quantised modules: there are the same ones, with the same values. */
async function compareOthers({
  merged,
  integers,
  isTied,
  modules,
  tensors,
  smoothing,
  readMerged,
  readIntegers,
}: Compared): Promise<{ readonly same: number; readonly scaled: number }> {
  const replaced = new Set(modules.quantised.map(({ name }) => `${name}.weight`));
  let scaled = 0;
  let same = 0;
  for (const [name, tensor] of merged.tensors) {
    const found = integers.tensors.get(name);
    if (replaced.has(name)) {
      if (found !== undefined) throw checkFailed(`${name} is still there in 16 bits`);
      continue;
    }
    if (found === undefined) {
      if (isTied && HEAD.test(name)) continue;
      throw checkFailed(`there is no tensor ${name}`);
    }
    const ofModule = smoothing.get(name.replace(/\.(weight|bias)$/, ''));
    // What columns were multiplied with does not concern a bias.
    const concerns = name.endsWith('.bias') && ofModule?.rows === undefined ? undefined : ofModule;
    if (await compareTensor(name, tensor, found, concerns, readMerged, readIntegers)) scaled++;
    else same++;
  }
  const ofIntegers = new Set(
    [...tensors.values()].flatMap((parts) => Object.values(parts).map(({ name }) => name)),
  );
  const strange = [...integers.tensors.keys()].find(
    (name) => !ofIntegers.has(name) && !merged.tensors.has(name),
  );
  if (strange !== undefined) throw checkFailed(`there is a tensor ${strange}, of nothing`);
  return { same, scaled };
}

function bitsPerWeight(
  { sizes }: ModelFiles,
  { files }: Checkpoint,
  shapes: ReadonlyMap<string, readonly number[]>,
): number {
  const bytes = files.reduce((sum, { path }) => sum + (sizes.get(path) ?? 0), 0);
  const weights = [...shapes.values()].reduce((sum, shape) => sum + elementCount(shape), 0);
  return (bytes * 8) / weights;
}

function describe(
  { kind, bits, groupSize }: IntegerConversion,
  { quantised, ignored }: IgnoredModules,
  same: number,
  scaled: number,
): string[] {
  const isAwq = kind === 'awq';
  return [
    `${quantised.length} linear layers have integers of ${bits} bits in groups of ${groupSize}, with ` +
      `the shapes and finite scales of compressed-tensors; left in 16 bits: ${ignored.length}.`,
    isAwq
      ? 'Each integer is the nearest to the merged weight, scaled as AWQ recorded.'
      : 'What the integers of each layer stand for is near its merged weight.',
    `${same} other tensors are the merged checkpoint's, byte for byte.`,
    ...(isAwq ? [`${scaled} tensors are the merged checkpoint's divided by AWQ's scales.`] : []),
    'config.json says what was asked for, and all else as the merged one.',
  ];
}
