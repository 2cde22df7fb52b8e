import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { elementCount } from '../../engine/safetensors/dtype.ts';
import type { IntegerStep } from '../conversion-step.ts';

/** Present where a GPU's driver is loaded: NVIDIA, AMD, and either under WSL. */
const GPU_DEVICES = ['/dev/nvidiactl', '/dev/kfd', '/dev/dxg'];

/**
 * Core seconds per 10⁹ parameters on a CPU: once, and for each 1000 tokens. Measured with
 * SmolLM2-135M in bfloat16 on two cores, from 700 to 8000 tokens; right to a factor of two.
 */
const CORE_SECONDS = {
  awq: { once: 220, perKiloToken: 240 },
  gptq: { once: 290, perKiloToken: 66 },
} as const;
/** Longer than this is worth saying before the merge. */
const SLOW_HOURS = 1;

/** Weights in 16 bits, and beside them a layer in float32, its Hessians or copies, and activations. */
const MEMORY_FACTOR = 1.5;
const LIBRARY_BYTES = 1_000_000_000;

/** What quantising on this machine will cost, where it is much. */
export function warnOfCost(
  { kind, settings }: IntegerStep,
  tensors: ReadonlyMap<string, readonly number[]>,
): string[] {
  const parameters = [...tensors.values()].reduce((sum, shape) => sum + elementCount(shape), 0);
  const warnings: string[] = [];
  const bytes = LIBRARY_BYTES + MEMORY_FACTOR * 2 * parameters;
  const free = process.availableMemory();
  if (bytes > free) {
    warnings.push(
      `about ${gigabytes(bytes)} GB of memory are needed, and ${gigabytes(free)} GB are free.`,
    );
  }
  if (GPU_DEVICES.some((path) => existsSync(path))) return warnings;
  const { once, perKiloToken } = CORE_SECONDS[kind];
  const kiloTokens = (settings.samples * settings.sequenceLength) / 1000;
  const coreSeconds = (parameters / 1e9) * (once + perKiloToken * kiloTokens);
  const hours = coreSeconds / availableParallelism() / 3600;
  if (hours < SLOW_HOURS) return warnings;
  return [
    ...warnings,
    `there is no GPU here, and without one ${kind.toUpperCase()} with ${settings.samples} samples of ` +
      `${settings.sequenceLength} tokens takes about ${Math.ceil(hours)} hours. Run it where a GPU is, ` +
      'or with fewer or shorter samples.',
  ];
}

function gigabytes(bytes: number): string {
  return (bytes / 1e9).toFixed(1);
}
