import { z } from 'zod';
import { childVariables, type Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import {
  isInstalled,
  KNOWN_VERSIONS,
  pythonEnvironment,
  pythonFile,
  TOOLS_PYTHON_MIN,
} from './python-environment.ts';
import type { PythonTools } from './python-tools.ts';
import { run } from './run.ts';

/** Reading what is installed takes a tenth of a second; on a cold network disk it takes longer. */
const PROBE_TIMEOUT_MS = 60_000;

export interface PythonToolsOptions {
  environment: Pick<Environment, 'toolsDirectory' | 'python'>;
  /** The environment for the programs run on the way; its PATH is searched. */
  variables?: Readonly<Record<string, string>> | undefined;
  signal?: AbortSignal | undefined;
  /** One line per step, for people. */
  onProgress?: ((line: string) => void) | undefined;
}

/**
 * The Python that converts and evaluates: the one that the user set, if it has what is needed in
 * versions that weldline knows, else the one that weldline installed. One that lacks packages makes
 * the installation; `onProgress` is told why a Python is passed over.
 *
 * @throws WeldlineError `tool.not-found` or `tool.wrong-version` when WELDLINE_PYTHON is no Python
 *   3.11 or newer
 */
export async function findPythonTools(
  options: PythonToolsOptions,
): Promise<PythonTools | undefined> {
  const { toolsDirectory, python } = options.environment;
  if (python !== undefined) {
    const facts = await probeSetting(python, options);
    const problems = problemsOf(facts);
    if (problems.length === 0) return toolsOf(facts, 'setting', facts.executable);
    options.onProgress?.(
      `WELDLINE_PYTHON: ${python} ${problems.join(', ')}. An environment of weldline's own is used.`,
    );
  }
  for (const isForGpu of [true, false]) {
    const installed = pythonEnvironment(toolsDirectory, isForGpu);
    if (!isInstalled(installed)) continue;
    try {
      const facts = await probe(installed.python, options);
      const problems = problemsOf(facts);
      if (problems.length === 0) return toolsOf(facts, 'installed', installed.python);
      options.onProgress?.(`Passing over ${installed.directory}: it ${problems.join(', ')}.`);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof WeldlineError)) throw error;
      options.onProgress?.(`Passing over ${installed.directory}: ${error.message}`);
    }
  }
  return undefined;
}

const pythonFacts = z.object({
  /** The interpreter itself, not a version manager's shim that looks at the current directory. */
  executable: z.string(),
  /** `3.11.7` */
  python: z.string(),
  /** Whether torch computes on one. */
  gpu: z.boolean().optional(),
  /** Package → version; null where it is missing. */
  packages: z.record(z.string(), z.string().nullable()),
});
type PythonFacts = z.infer<typeof pythonFacts>;

async function probe(python: string, options: PythonToolsOptions): Promise<PythonFacts> {
  const output = await run({
    file: python,
    args: ['-B', pythonFile('probe.py'), ...Object.keys(KNOWN_VERSIONS)],
    env: options.variables ?? childVariables(),
    signal: options.signal,
    timeoutMs: PROBE_TIMEOUT_MS,
  });
  try {
    return pythonFacts.parse(JSON.parse(output.trim().split('\n').at(-1) ?? ''));
  } catch (error) {
    const printed = output.trim().slice(0, 100);
    throw new WeldlineError(
      'tool.wrong-version',
      `${python} does not behave like a Python; asked for its packages, it printed "${printed}".`,
      { cause: error },
    );
  }
}

async function probeSetting(python: string, options: PythonToolsOptions): Promise<PythonFacts> {
  let code: 'tool.not-found' | 'tool.wrong-version' = 'tool.not-found';
  try {
    const facts = await probe(python, options);
    if (!isOlder(facts.python, TOOLS_PYTHON_MIN)) return facts;
    code = 'tool.wrong-version';
    const wanted = TOOLS_PYTHON_MIN.join('.');
    throw new WeldlineError(
      code,
      `${python} is Python ${facts.python}; converting and evaluating need ${wanted} or newer.`,
    );
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof WeldlineError)) throw error;
    if (error.code === 'tool.wrong-version') code = error.code;
    throw new WeldlineError(
      code,
      `WELDLINE_PYTHON: ${error.message} Correct it, or unset it to let weldline find one.`,
      { cause: error },
    );
  }
}

/** What is wrong with the packages of a Python, as ends of a sentence about it. */
function problemsOf({ packages }: PythonFacts): string[] {
  return Object.entries(KNOWN_VERSIONS).flatMap(([name, known]) => {
    const version = packages[name] ?? undefined;
    if (version === undefined) return [`has no ${name}`];
    const isKnown = known.length === 0 || known.some((series) => version.startsWith(`${series}.`));
    return isKnown ? [] : [`has ${name} ${version}, weldline knows ${known.join(' and ')}`];
  });
}

function toolsOf(
  { packages, gpu }: PythonFacts,
  origin: PythonTools['origin'],
  python: string,
): PythonTools {
  const entries = Object.entries(packages).map(([name, version]) => [name, version ?? '']);
  const versions = Object.fromEntries(entries) as Record<string, string>;
  return { origin, python, versions, ...(gpu === true && { gpu }) };
}

function isOlder(version: string, [major, minor]: readonly [number, number]): boolean {
  const [ofMajor = 0, ofMinor = 0] = version.split('.').map(Number);
  return ofMajor < major || (ofMajor === major && ofMinor < minor);
}
