import { copyFile, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { IntegerConversion } from '../../config/release-quality.ts';
import { digestOf } from '../../engine/canonical-json.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';
import { isSideFile } from '../../engine/plan/side-files.ts';
import type { PythonTools } from '../../tools/python-tools.ts';
import type { IntegerStep } from '../conversion-step.ts';
import { type ConversionFindings, makeConversion } from '../conversion-store.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';
import { checkIntegers } from './check-integers.ts';
import { type Calibration, readCalibration } from './read-calibration.ts';
import { type Quantized, runQuantizer } from './run-quantizer.ts';

/** Raised when the same inputs give other files: a change of tools/python/quantize.py. */
const FORMAT = 1;

/** What decides the bytes, beside the settings and the data. */
const PACKAGES = ['llmcompressor', 'compressed-tensors', 'transformers', 'torch'];

const CONFIG_FILE = 'config.json';
const WEIGHT_FILE = /^model[^/]*\.safetensors(\.index\.json)?$/;

/**
 * Quantises the merged checkpoint to integers in the compressed-tensors format, by AWQ or GPTQ on
 * the user's own data, and compares all of it with the merged weights.
 *
 * @throws WeldlineError `convert.bad-calibration`, `convert.check-failed`,
 *   `convert.unsupported-architecture`; `tool.*`, `disk.*`
 */
export async function convertToIntegers(options: ConvertOptions<IntegerStep>): Promise<Conversion> {
  const { step, mergedDigest, directory, tools, signal } = options;
  const { python } = tools;
  if (python === undefined) {
    throw new WeldlineError(
      'tool.not-found',
      `${step.id} needs llm-compressor. Run \`weldline tools install awq\`, or set WELDLINE_PYTHON to a ` +
        'Python that has it, and resume.',
    );
  }
  const { id, kind, settings } = step;
  const calibration = await readCalibration(settings.calibration);
  const sequenceLength = await sequenceLengthFor(settings, options.merged);
  const versions = Object.fromEntries(
    Object.entries(python.versions).filter(([name]) => PACKAGES.includes(name)),
  );
  const used = describeSettings(settings, sequenceLength, calibration);
  const key = digestOf({ format: FORMAT, kind, merged: mergedDigest, settings: used, versions });
  const facts = { id, kind, key, tools: versions, settings: used };
  const make = (partial: string) =>
    makeIntegers(options, python, calibration, sequenceLength, partial);
  return await makeConversion(directory, facts, make, signal);
}

/** Longer samples than the model has positions for would be nonsense to it. */
async function sequenceLengthFor(settings: IntegerConversion, merged: string): Promise<number> {
  const config = parseJson(await readFile(join(merged, CONFIG_FILE), 'utf8'));
  const positions = (config as Record<string, unknown>)['max_position_embeddings'];
  return Math.min(settings.sequenceLength, typeof positions === 'number' ? positions : Infinity);
}

function describeSettings(
  { bits, groupSize, symmetric, ignore, samples }: IntegerConversion,
  sequenceLength: number,
  { digest }: Calibration,
): Conversion['manifest']['settings'] {
  return {
    ...{ bits, group_size: groupSize, symmetric, ignore, samples },
    sequence_length: sequenceLength,
    calibration_sha256: digest,
  };
}

async function makeIntegers(
  options: ConvertOptions<IntegerStep>,
  python: PythonTools,
  calibration: Calibration,
  sequenceLength: number,
  partial: string,
): Promise<ConversionFindings> {
  const { step, merged, tools, threads, signal, onProgress, logFile } = options;
  const { settings } = step;
  const work = join(partial, 'work');
  await mkdir(work);
  const quantized = await runQuantizer({
    ...{ settings, calibration, sequenceLength, model: merged, directory: work, python },
    variables: tools.variables,
    stallTimeoutMs: tools.stallTimeoutMs,
    ...{ threads, signal, onProgress, logFile },
  });
  for (const name of await readdir(quantized.output)) {
    if (name !== CONFIG_FILE && !WEIGHT_FILE.test(name)) continue;
    await rename(join(quantized.output, name), join(partial, name));
  }
  // What llm-compressor writes beside the weights is its own reading of these.
  for (const name of await readdir(merged)) {
    if (name !== CONFIG_FILE && isSideFile(name)) {
      await copyFile(join(merged, name), join(partial, name));
    }
  }
  const { inputsMax, ...findings } = await checkIntegers({
    ...{ settings, merged, integers: partial, scales: quantized.scales, signal },
    onProgress: (fraction) => onProgress?.({ stage: 'checking', fraction }),
  });
  await rm(work, { recursive: true });
  return { ...findings, warnings: warningsOf(settings, quantized, inputsMax) };
}

function warningsOf(
  { kind, samples }: IntegerConversion,
  quantized: Quantized,
  inputsMax: number,
): string[] {
  const warnings: string[] = [];
  if (quantized.samples < samples) {
    warnings.push(
      `The calibration data has ${quantized.samples} samples where ${samples} were asked for.`,
    );
  }
  if (kind === 'gptq' && quantized.tokens < inputsMax) {
    warnings.push(
      `The calibration data has ${quantized.tokens} tokens, fewer than the ${inputsMax} inputs of the ` +
        'widest layer: GPTQ cannot tell from so few which errors cancel each other out. Give more.',
    );
  }
  return warnings;
}
