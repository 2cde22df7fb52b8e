import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The oldest Python that the pinned packages run on. */
export const TOOLS_PYTHON_MIN = [3, 11] as const;

/**
 * What a Python must have to convert and to evaluate, and the series of versions that weldline is
 * tested with: another release of the same series is taken, another series is not. Packages without
 * one may have any version.
 */
export const KNOWN_VERSIONS: Readonly<Record<string, readonly string[]>> = {
  torch: ['2.11'],
  transformers: ['5.17'],
  peft: ['0.21'],
  llmcompressor: ['0.14'],
  'compressed-tensors': ['0.19'],
  accelerate: [],
  bitsandbytes: [],
  numpy: [],
  protobuf: [],
  safetensors: [],
  sentencepiece: [],
  tokenizers: [],
};

const SCRIPTS = new URL('./python/', import.meta.url);
/** Written last by `environment.py`: there is an environment when this is there. */
const MARKER = 'weldline-environment.json';

/** A script or lock of weldline's own, in `tools/python/`. */
export function pythonFile(name: string): string {
  return fileURLToPath(new URL(name, SCRIPTS));
}

/** An environment of weldline's own and what it is made from. */
export interface PythonEnvironment {
  readonly directory: string;
  readonly locks: readonly string[];
  readonly python: string;
}

/**
 * Where the environment for a machine with or without an NVIDIA GPU is or will be: its name changes
 * with what is in it, so that several versions of weldline get along.
 */
export function pythonEnvironment(toolsDirectory: string, isForGpu: boolean): PythonEnvironment {
  const names = ['requirements.lock', ...(isForGpu ? ['requirements-cuda.lock'] : [])];
  const locks = names.map(pythonFile);
  const digest = createHash('sha256');
  for (const lock of locks) digest.update(readFileSync(lock));
  const directory = join(toolsDirectory, `python-${digest.digest('hex').slice(0, 8)}`);
  return { directory, locks, python: join(directory, 'bin', 'python') };
}

/** Whether an environment was made to its end. */
export function isInstalled({ directory }: PythonEnvironment): boolean {
  return existsSync(join(directory, MARKER));
}
