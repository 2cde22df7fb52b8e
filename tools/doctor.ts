import { access, constants, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { childVariables, type Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { findCompiler } from './build-llama-programs.ts';
import { findLlamaCpp } from './find-llama-cpp.ts';
import { findOnPath } from './find-on-path.ts';
import { findPythonTools } from './find-python-tools.ts';
import { checkLlamaCpp } from './install-llama-cpp.ts';
import type { LlamaCpp } from './llama-cpp.ts';
import { LLAMA_CPP_BYTES } from './llama-cpp-release.ts';
import { KNOWN_VERSIONS } from './python-environment.ts';
import type { RecipeNeeds } from './recipe-needs.ts';
import { run } from './run.ts';
import { findTemporalCli } from './temporal-cli.ts';

const NODE_VERSION_MIN = [20, 15] as const;
const GPU_TIMEOUT_MS = 20_000;
/** As tools/python/install.py asks for: unpacked, with pip's downloads beside it. */
export const PYTHON_TOOLS_BYTES = 3_000_000_000;

/** One thing that weldline uses, as the machine has it. Never holds a secret. */
export interface DoctorCheck {
  readonly id:
    | 'node'
    | 'kernel'
    | 'temporal'
    | 'llama.cpp'
    | 'llama-imatrix'
    | 'python'
    | 'disk'
    | 'gpu'
    | 'hub-token'
    | 'endpoint-key'
    | 'signing'
    | 'target';
  /** For people. */
  readonly name: string;
  readonly state: 'ok' | 'missing' | 'unusable';
  /** Whether what is to be done needs it; nothing is asked of anything else. */
  readonly needed: boolean;
  readonly version?: string;
  readonly path?: string;
  /** What it is used for, or what is wrong. */
  readonly note?: string;
  /** What mends it: a command, or a setting. */
  readonly mend?: string;
}

export interface Diagnosis {
  /** Nothing that is needed is missing. */
  readonly ok: boolean;
  readonly checks: readonly DoctorCheck[];
}

export interface DiagnoseOptions {
  environment: Environment;
  /** Those of the recipe at hand; without one, nothing is needed but Node. */
  needs?: RecipeNeeds | undefined;
  /** Which merge kernel this machine runs, or why none. */
  kernel: 'native' | 'wasm' | 'scalar' | Error;
  /** The environment for the programs run on the way; its PATH is searched. */
  variables?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
}

/** Looks at the machine; installs and changes nothing. Every problem is a check, not an error. */
export async function diagnose(options: DiagnoseOptions): Promise<Diagnosis> {
  const { needs } = options;
  const llamaCpp = await lookForLlamaCpp(options);
  const python = await lookForPython(options);
  const toInstall =
    (llamaCpp.check.needed && llamaCpp.check.state !== 'ok' ? LLAMA_CPP_BYTES : 0) +
    (python.needed && python.state !== 'ok' ? PYTHON_TOOLS_BYTES : 0);
  const checks: DoctorCheck[] = [
    checkNode(),
    checkKernel(options.kernel),
    await checkTemporal(options),
    llamaCpp.check,
    ...(needs?.makesImatrix ? [await checkImatrix(llamaCpp.found, options)] : []),
    python,
    await checkDisk(options.environment.home, toInstall),
    await checkGpu(needs?.calibrates ?? false, options),
    checkToken(options.environment),
    ...(needs?.endpoint === undefined
      ? []
      : [checkEndpointKey(options.environment, needs.endpoint)]),
  ];
  return { ok: checks.every(({ needed, state }) => !needed || state === 'ok'), checks };
}

function checkNode(): DoctorCheck {
  const { version } = process;
  const [major = 0, minor = 0] = version.slice(1).split('.').map(Number);
  const [majorMin, minorMin] = NODE_VERSION_MIN;
  const isNewEnough = major > majorMin || (major === majorMin && minor >= minorMin);
  return {
    ...{ id: 'node', name: 'Node.js', needed: true, version: version.slice(1) },
    ...{ path: process.execPath, state: isNewEnough ? 'ok' : 'unusable' },
    ...(isNewEnough ? {} : { mend: `install Node.js ${NODE_VERSION_MIN.join('.')} or later` }),
  };
}

function checkKernel(kernel: DiagnoseOptions['kernel']): DoctorCheck {
  const base = { id: 'kernel', name: 'Merge kernel', needed: true } as const;
  if (kernel instanceof Error) return { ...base, state: 'missing', note: kernel.message };
  const version = { native: 'native', wasm: 'WebAssembly', scalar: 'scalar (slow)' }[kernel];
  return { ...base, state: 'ok', version };
}

async function checkTemporal(options: DiagnoseOptions): Promise<DoctorCheck> {
  const { environment } = options;
  const base = { id: 'temporal', name: 'Temporal', needed: false } as const;
  if (environment.temporalConfigured) {
    return { ...base, state: 'ok', note: 'a server that the environment names' };
  }
  try {
    const found = await findTemporalCli(options);
    if (found !== undefined) {
      return { ...base, state: 'ok', version: found.version, path: found.path };
    }
    return { ...base, state: 'missing', note: 'the first release installs it' };
  } catch (error) {
    return { ...base, state: 'unusable', needed: true, ...problem(error, options.signal) };
  }
}

async function lookForLlamaCpp(
  options: DiagnoseOptions,
): Promise<{ check: DoctorCheck; found?: LlamaCpp }> {
  const { needs, variables = childVariables(), signal } = options;
  const note = needs?.llamaCpp ?? 'for GGUF files';
  const base = { id: 'llama.cpp', name: 'llama.cpp', note } as const;
  const needed = needs?.llamaCpp !== undefined;
  const mend = 'weldline tools install gguf';
  const passedOver: string[] = [];
  try {
    const onProgress = (line: string) => passedOver.push(line);
    const found = await findLlamaCpp({ ...options, onProgress });
    if (found === undefined) {
      const notes = [note, ...passedOver].join('. ');
      return { check: { ...base, needed, state: 'missing', note: notes, mend } };
    }
    const { version, directory: path } = found;
    if (found.origin === 'installed') await checkLlamaCpp(found, variables, signal);
    const isOwn = found.libraries === undefined;
    if (needs?.runsGguf && isOwn && found.programs['llama-server'] === undefined) {
      const lack = 'it has no llama-server, which evaluating GGUF files needs';
      const instead = found.origin === 'path' ? 'take it off PATH' : 'unset WELDLINE_LLAMA_CPP';
      const advice = `build llama-server beside it, or ${instead}`;
      const check = { ...base, needed, state: 'unusable', version, path } as const;
      return { check: { ...check, note: lack, mend: advice }, found };
    }
    const limit = 'one of your own gives no distributions, so KL is not measured of GGUF files';
    const about = needs?.runsGguf && isOwn ? { note: limit } : {};
    return { check: { ...base, needed, state: 'ok', version, path, ...about }, found };
  } catch (error) {
    const isSet = options.environment.llamaCpp !== undefined;
    const check = { ...base, needed: needed || isSet, state: 'unusable' } as const;
    return { check: { ...check, ...problem(error, signal), ...(isSet ? {} : { mend }) } };
  }
}

/** It has to be there or to be built; both are fine. */
async function checkImatrix(
  llamaCpp: LlamaCpp | undefined,
  { variables = childVariables() }: DiagnoseOptions,
): Promise<DoctorCheck> {
  const name = 'llama-imatrix';
  const note = 'to make an importance matrix';
  const base = { id: name, name, needed: true, note } as const;
  const path = llamaCpp?.programs[name];
  if (path !== undefined) return { ...base, state: 'ok', path };
  if (llamaCpp !== undefined && llamaCpp.libraries === undefined) {
    const mend = `build it beside the others: cmake --build build --target ${name}`;
    return { ...base, state: 'missing', mend };
  }
  try {
    const compiler = await findCompiler(name, variables);
    return { ...base, state: 'ok', note: `${note}; built with ${compiler} when needed` };
  } catch (error) {
    if (!(error instanceof WeldlineError)) throw error;
    const mend = 'install a C++ compiler (Debian and Ubuntu: apt install g++)';
    return { ...base, state: 'missing', mend };
  }
}

async function lookForPython(options: DiagnoseOptions): Promise<DoctorCheck> {
  const { needs } = options;
  const note = needs?.python ?? 'for conversions and evaluation';
  const needed = needs?.python !== undefined;
  const base = { id: 'python', name: 'Python tools', needed, note } as const;
  const [purpose] = [needs?.llamaCpp && 'gguf', needs?.calibrates && 'awq', 'eval'].filter(Boolean);
  const mend = `weldline tools install ${purpose}`;
  const passedOver: string[] = [];
  try {
    const onProgress = (line: string) => passedOver.push(line);
    const found = await findPythonTools({ ...options, onProgress });
    if (found === undefined) {
      const known = Object.entries(KNOWN_VERSIONS).flatMap(([name, series]) =>
        series.length === 0 ? [] : [`${name} ${series.join(' or ')}`],
      );
      const notes = [`${note}: ${known.join(', ')}`, ...passedOver].join('. ');
      return { ...base, state: 'missing', note: notes, mend };
    }
    // Only those that weldline knows in certain versions decide what comes out.
    const version = Object.entries(found.versions)
      .filter(([name]) => (KNOWN_VERSIONS[name]?.length ?? 0) > 0)
      .map(([name, each]) => `${name} ${each}`)
      .join(', ');
    return {
      ...{ ...base, state: 'ok', version, path: found.python },
      note: [note, ...passedOver].join('. '),
    };
  } catch (error) {
    // Only the setting throws, and no installation mends that.
    return { ...base, state: 'unusable', ...problem(error, options.signal) };
  }
}

async function checkDisk(home: string, bytesNeeded: number): Promise<DoctorCheck> {
  const base = { id: 'disk', name: 'Disk space', needed: true } as const;
  const directory = await nearestExisting(home);
  const { bavail, bsize } = await statfs(directory);
  const free = bavail * bsize;
  const version = `${gigabytes(free)} free`;
  const mend = 'set WELDLINE_HOME to another place';
  try {
    await access(directory, constants.W_OK);
  } catch {
    return { ...base, state: 'unusable', path: home, version, note: 'not writable', mend };
  }
  const isEnough = free >= bytesNeeded;
  const note = `the tools yet to be installed take ${gigabytes(bytesNeeded)}`;
  return {
    ...{ ...base, path: home, version, state: isEnough ? 'ok' : 'unusable' },
    ...(isEnough ? {} : { note, mend: `free some, or ${mend}` }),
  };
}

async function checkGpu(
  calibrates: boolean,
  { variables = childVariables(), signal }: DiagnoseOptions,
): Promise<DoctorCheck> {
  const base = { id: 'gpu', name: 'NVIDIA GPU', needed: false } as const;
  const slow = 'AWQ and GPTQ take minutes for each 100 M parameters on the processor';
  const none = { ...base, state: 'missing', ...(calibrates ? { note: slow } : {}) } as const;
  const program = await findOnPath('nvidia-smi', variables['PATH']);
  if (program === undefined) return none;
  try {
    const args = ['--query-gpu=name,memory.total', '--format=csv,noheader'];
    const limits = { signal, timeoutMs: GPU_TIMEOUT_MS };
    const output = await run({ file: program, args, env: variables, ...limits });
    const version = output.trim().split('\n').join('; ');
    return version === '' ? none : { ...base, state: 'ok', version };
  } catch (error) {
    return { ...none, state: 'unusable', ...problem(error, signal) };
  }
}

/** That there is one, never what it is. */
function checkToken({ hub }: Environment): DoctorCheck {
  const base = { id: 'hub-token', name: 'Hub token', needed: false } as const;
  if (hub.token !== undefined) return { ...base, state: 'ok', note: `for ${hub.endpoint}` };
  const mend = 'set HF_TOKEN, or run `hf auth login`';
  return { ...base, state: 'missing', note: 'for private and gated models', mend };
}

function checkEndpointKey({ endpointKey }: Environment, url: string): DoctorCheck {
  const base = { id: 'endpoint-key', name: 'Endpoint key', needed: false } as const;
  if (endpointKey !== undefined) return { ...base, state: 'ok', note: `for ${url}` };
  const mend = 'set WELDLINE_ENDPOINT_KEY, if the server asks for one';
  return { ...base, state: 'missing', note: `for ${url}`, mend };
}

function problem(error: unknown, signal: AbortSignal | undefined): { note: string } {
  signal?.throwIfAborted();
  if (!(error instanceof WeldlineError)) throw error;
  return { note: error.message };
}

async function nearestExisting(path: string): Promise<string> {
  try {
    await access(path);
    return path;
  } catch {
    return nearestExisting(dirname(path));
  }
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
