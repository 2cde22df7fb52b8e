import { mkdir } from 'node:fs/promises';
import { childVariables } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { findOnPath } from './find-on-path.ts';
import { findPythonTools, type PythonToolsOptions } from './find-python-tools.ts';
import { findPython, type Python } from './python.ts';
import {
  isInstalled,
  pythonEnvironment,
  pythonFile,
  TOOLS_PYTHON_MIN,
} from './python-environment.ts';
import type { PythonTools } from './python-tools.ts';
import { run } from './run.ts';

/** 0.8 GB (3 GB for a GPU) on a slow line; pip itself gives up on connections that hang. */
const INSTALL_TIMEOUT_MS = 6 * 60 * 60_000;
/** The user's settings for Python are not for this; `-I` would keep it from its own modules too. */
const PYTHON_FLAGS = ['-E', '-s', '-B', '-u'];
const NVIDIA_SMI_TIMEOUT_MS = 30_000;

const BY_HAND =
  'Or set WELDLINE_PYTHON to a Python that has torch, transformers, peft and llmcompressor in the ' +
  'versions that `weldline doctor` names.';

/**
 * Installs the pinned packages into an environment of weldline's own, if it is not there: 0.8 GB to
 * download and 1.7 GB on the disk, NVIDIA's libraries with them where there is a GPU of theirs. pip
 * checks every hash; everything is imported once before the environment counts as installed. After
 * an interruption it is made again from what pip has in its cache. Processes that install at the same
 * time wait for each other.
 *
 * @throws WeldlineError `tool.not-found` without a Python 3.11 or newer, `tool.wrong-version` when
 *   WELDLINE_PYTHON is older, `disk.full`, `tool.install-failed` with pip's last lines
 */
export async function installPythonTools(options: PythonToolsOptions): Promise<PythonTools> {
  const { toolsDirectory } = options.environment;
  const variables = options.variables ?? childVariables();
  const { signal, onProgress } = options;
  const isForGpu = await hasNvidiaGpu(variables, signal);
  const environment = pythonEnvironment(toolsDirectory, isForGpu);
  const own = { ...options, environment: { toolsDirectory } };
  const installed = isInstalled(environment) ? await findPythonTools(own) : undefined;
  if (installed !== undefined) return installed;
  const python = await findBasePython(options, variables);
  const { directory, locks } = environment;
  const check = pythonFile('check_tools.py');
  try {
    await mkdir(toolsDirectory, { recursive: true });
    await run({
      file: python.path,
      args: [...PYTHON_FLAGS, pythonFile('install.py'), directory, check, ...locks],
      env: variables,
      signal,
      timeoutMs: INSTALL_TIMEOUT_MS,
      onLine: (line, from) => {
        // What it says on the other is in the error.
        if (from === 'stdout') onProgress?.(line);
      },
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw installFailed(error, directory);
  }
  const found = await findPythonTools(own);
  if (found !== undefined) return found;
  throw new WeldlineError(
    'tool.install-failed',
    `The Python tools were installed into ${directory}, but are not found there. Remove that ` +
      `directory and try again. ${BY_HAND}`,
  );
}

async function findBasePython(
  options: PythonToolsOptions,
  variables: Readonly<Record<string, string>>,
): Promise<Python> {
  const { signal } = options;
  const { python } = options.environment;
  const found = await findPython({ python, variables, signal, versionMin: TOOLS_PYTHON_MIN });
  if (found !== undefined) return found;
  throw new WeldlineError(
    'tool.not-found',
    'Converting and evaluating need Python 3.11 or newer, which this machine lacks. Install it ' +
      '(Debian and Ubuntu: apt install python3 python3-venv), or set WELDLINE_PYTHON to one.',
  );
}

/** Asks NVIDIA's own program, which comes with the driver. */
async function hasNvidiaGpu(
  variables: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const file = await findOnPath('nvidia-smi', variables['PATH']);
  if (file === undefined) return false;
  try {
    const limits = { signal, timeoutMs: NVIDIA_SMI_TIMEOUT_MS };
    const output = await run({ file, args: ['--list-gpus'], env: variables, ...limits });
    return /^GPU \d+:/m.test(output);
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof WeldlineError)) throw error;
    return false;
  }
}

function installFailed(error: unknown, directory: string): unknown {
  if (!(error instanceof WeldlineError)) return error;
  return new WeldlineError(
    error.code === 'disk.full' ? 'disk.full' : 'tool.install-failed',
    `The Python tools could not be installed into ${directory}: ${error.message}\n${BY_HAND}`,
    { cause: error },
  );
}
