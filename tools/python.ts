import { WeldlineError } from '../engine/errors.ts';
import { findOnPath } from './find-on-path.ts';
import { run } from './run.ts';

/** The oldest Python whose pip the tool installation is known to work with. */
export const PYTHON_VERSION_MIN = [3, 9] as const;
/** Those with a version are for systems whose own is older. */
const NAMES = ['python3', 'python', 'python3.13', 'python3.12', 'python3.11'];
/** A Python on a cold network disk takes seconds to start; one that hangs must not hold us up. */
const PROBE_TIMEOUT_MS = 60_000;

export interface Python {
  path: string;
  /** `3.11.7` */
  version: string;
}

export interface FindPythonOptions {
  /** The user's choice, used or refused, never passed over. */
  python?: string | undefined;
  /** `[3, 9]` unless what is to be done needs a newer one. */
  versionMin?: readonly [number, number] | undefined;
  /** The environment the interpreter runs in; `PATH` is searched. */
  variables: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
}

/**
 * The machine's Python, or undefined when it has none that is new enough.
 *
 * @throws WeldlineError `tool.not-found` or `tool.wrong-version` when `python` is given and is not
 *   a Python of `versionMin` or newer
 */
export async function findPython(options: FindPythonOptions): Promise<Python | undefined> {
  if (options.python !== undefined) return await probe(options.python, options);
  for (const name of NAMES) {
    const path = await findOnPath(name, options.variables['PATH']);
    if (path === undefined) continue;
    try {
      return await probe(path, options);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof WeldlineError)) throw error;
    }
  }
  return undefined;
}

async function probe(path: string, options: FindPythonOptions): Promise<Python> {
  const script = 'import sys; print("%d.%d.%d" % sys.version_info[:3]); print(sys.executable)';
  const output = await run({
    file: path,
    args: ['-c', script],
    env: options.variables,
    signal: options.signal,
    timeoutMs: PROBE_TIMEOUT_MS,
  });
  const [version = '', executable] = output.trim().split('\n');
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [majorMin, minorMin] = options.versionMin ?? PYTHON_VERSION_MIN;
  if (!(major > majorMin || (major === majorMin && minor >= minorMin))) {
    throw new WeldlineError(
      'tool.wrong-version',
      `${path} is Python ${version}; weldline needs ${majorMin}.${minorMin} or newer. ` +
        'Set WELDLINE_PYTHON to another one.',
    );
  }
  // The interpreter itself, not a version manager's shim that looks at the current directory.
  return { path: executable || path, version };
}
