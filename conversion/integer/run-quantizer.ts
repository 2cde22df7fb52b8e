import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { IntegerConversion } from '../../config/release-quality.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { PythonTools } from '../../tools/python-tools.ts';
import { run } from '../../tools/run.ts';
import type { ConversionProgress } from '../convert-options.ts';
import type { Calibration } from './read-calibration.ts';

const SCRIPT = fileURLToPath(new URL('../../tools/python/quantize.py', import.meta.url));

/** The longest that one layer of a large model is worked on without a sign, on a slow CPU. */
const STALL_TIMEOUT_MS = 30 * 60_000;

export interface QuantizerOptions {
  readonly settings: IntegerConversion;
  readonly calibration: Calibration;
  /** Tokens to which samples are cut. */
  readonly sequenceLength: number;
  /** Directory of the checkpoint. */
  readonly model: string;
  /** Empty; gets the quantised checkpoint in `output/` and files of its own. */
  readonly directory: string;
  readonly python: PythonTools;
  readonly variables: Readonly<Record<string, string>>;
  readonly threads?: number | undefined;
  readonly stallTimeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ConversionProgress) => void) | undefined;
  readonly logFile?: string | undefined;
}

export interface Quantized {
  /** The weights and their config.json. */
  readonly output: string;
  /** What `readSmoothing` reads; of AWQ only. */
  readonly scales?: string;
  /** How many samples were used, and how many tokens they are. */
  readonly samples: number;
  readonly tokens: number;
  readonly device: string;
}

const doneSchema = z.object({
  done: z.literal(true),
  samples: z.number(),
  tokens: z.number(),
  device: z.string(),
});
const eventSchema = z.union([
  z.object({ stage: z.string(), layer: z.number().optional(), layers: z.number().optional() }),
  z.object({ error: z.enum(['calibration', 'architecture']), message: z.string() }),
  doneSchema,
]);

/**
 * Has llm-compressor quantise a checkpoint, by tools/python/quantize.py.
 *
 * @throws WeldlineError `convert.bad-calibration`, `convert.unsupported-architecture`; `tool.*`,
 *   `disk.full`
 */
export async function runQuantizer(options: QuantizerOptions): Promise<Quantized> {
  const { settings, directory, python, variables, signal, logFile, onProgress } = options;
  const paths = {
    settings: join(directory, 'settings.json'),
    samples: join(directory, 'samples.jsonl'),
    output: join(directory, 'output'),
    scales: join(directory, 'scales.safetensors'),
  };
  await writeFile(paths.samples, linesOf(options.calibration));
  await writeFile(paths.settings, JSON.stringify(toSettings(options, paths)));

  let done: z.infer<typeof doneSchema> | undefined;
  let refusal: WeldlineError | undefined;
  const onLine = (line: string): void => {
    const event = parseEvent(line);
    if (event === undefined) return;
    if ('done' in event) done = event;
    else if ('error' in event) refusal = toError(event.error, event.message, settings);
    else onProgress?.(toProgress(event));
  };
  try {
    await run({
      file: python.python,
      args: [SCRIPT, paths.settings],
      env: variables,
      stallTimeoutMs: options.stallTimeoutMs ?? STALL_TIMEOUT_MS,
      ...{ signal, logFile, onLine },
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw refusal ?? error;
  }
  if (done === undefined) {
    throw new WeldlineError(
      'tool.failed',
      `${python.python} ran llm-compressor and did not say that it finished. The log has what it said.`,
    );
  }
  const { output, scales } = paths;
  const { samples, tokens, device } = done;
  return { output, samples, tokens, device, ...(settings.kind === 'awq' ? { scales } : {}) };
}

function toSettings(
  { settings, sequenceLength, model, threads }: QuantizerOptions,
  paths: Readonly<Record<'samples' | 'output' | 'scales', string>>,
) {
  const { kind, bits, groupSize, symmetric, ignore, samples } = settings;
  return {
    ...{ method: kind, bits, groupSize, symmetric, ignore, sequenceLength, model, threads },
    samplesMax: samples,
    ...paths,
  };
}

/** One at a time: together they may be longer than the longest string. */
function linesOf({ samples }: Calibration): Iterable<string> {
  return (function* () {
    for (const sample of samples) yield `${JSON.stringify(sample)}\n`;
  })();
}

function parseEvent(line: string): z.infer<typeof eventSchema> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return eventSchema.parse(JSON.parse(line));
  } catch {
    // A line of the log that only looks like one.
    return undefined;
  }
}

function toProgress({
  stage,
  layer,
  layers,
}: {
  readonly stage: string;
  readonly layer?: number | undefined;
  readonly layers?: number | undefined;
}): ConversionProgress {
  if (layer === undefined || layers === undefined) return { stage };
  return { stage, fraction: layers === 0 ? 0 : layer / layers };
}

function toError(
  kind: 'calibration' | 'architecture',
  message: string,
  { calibration }: IntegerConversion,
): WeldlineError {
  return kind === 'calibration'
    ? new WeldlineError(
        'convert.bad-calibration',
        `${calibration}: ${message}. Correct it and resume.`,
      )
    : new WeldlineError(
        'convert.unsupported-architecture',
        `transformers cannot load the merged model: ${message}`,
      );
}
