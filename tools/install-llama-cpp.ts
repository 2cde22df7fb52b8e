import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { childVariables, type Environment } from '../config/environment.ts';
import { assert, systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { checkDiskSpace } from '../engine/plan/disk-space.ts';
import { extractGitBundle } from './extract-git-bundle.ts';
import { findOnPath } from './find-on-path.ts';
import { withInstallLock } from './install-lock.ts';
import { QUANTIZE_PARAMETERS_BYTES } from './llama-cpp/quantize-parameters.ts';
import type { LlamaCpp } from './llama-cpp.ts';
import {
  installDirectory,
  installedLlamaCpp,
  LLAMA_CPP_BYTES,
  LLAMA_CPP_COMMIT,
  LLAMA_CPP_RELEASE,
  LLAMA_LIBRARY_VERSION,
  platformPackages,
  readLlamaCppLock,
  SOURCE_PATHS,
} from './llama-cpp-release.ts';
import { run } from './run.ts';

/** npm says when a package has come; the largest is 35 MB, which takes 12 min at 50 kB/s. */
const STALL_TIMEOUT_MS = 15 * 60_000;
const CHECK_TIMEOUT_MS = 60_000;
const MODULE = import.meta.url;
/** Beside its name, the size of `llama_model_quantize_params` and two of its defaults: Q8_0, 8 GiB. */
const LIBRARY_FACTS = {
  version: LLAMA_LIBRARY_VERSION,
  size: QUANTIZE_PARAMETERS_BYTES,
  ftype: 7,
  bufferBytes: 8 * 1024 ** 3,
};

const BY_HAND = 'Or put a llama.cpp of your own on PATH, or its directory into WELDLINE_LLAMA_CPP.';

export interface InstallLlamaCppOptions {
  environment: Pick<Environment, 'toolsDirectory'>;
  /** The environment for npm: its settings and proxies; PATH is searched for it. */
  variables?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
  /** One line per step, for people. */
  onProgress?: ((line: string) => void) | undefined;
}

/**
 * Installs the pinned llama.cpp, if it is not there or does not work: npm brings the packages of the lock and checks
 * their digests, and the converter's source comes out of a git bundle in one of them. It needs npm,
 * which comes with Node, and no compiler, git or Python. All is made beside its place, tried, and
 * renamed into it; what npm downloaded before it was interrupted is in its cache.
 *
 * @throws WeldlineError `tool.not-found` without npm or on a machine without prebuilt libraries,
 *   `disk.full`, `tool.install-failed` with npm's last lines
 */
export async function installLlamaCpp(options: InstallLlamaCppOptions): Promise<LlamaCpp> {
  const directory = installDirectory(options.environment.toolsDirectory);
  const installed = await usable(directory, options);
  if (installed !== undefined) return installed;
  const lock = `${directory}.lock`;
  const onWait = () => options.onProgress?.('Waiting for another process that installs llama.cpp');
  try {
    return await withInstallLock({ path: lock, signal: options.signal, onWait }, async () => {
      return (await usable(directory, options)) ?? (await installInto(directory, options));
    });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw installFailed(error, directory);
  }
}

/** What is installed, if it is whole and works. */
async function usable(
  directory: string,
  { variables = childVariables(), signal, onProgress }: InstallLlamaCppOptions,
): Promise<LlamaCpp | undefined> {
  const installed = installedLlamaCpp(directory);
  if (installed === undefined) return undefined;
  try {
    await checkLlamaCpp(installed, variables, signal);
    return installed;
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof WeldlineError)) throw error;
    onProgress?.(`Replacing the llama.cpp in ${directory}, which does not work: ${error.message}`);
    return undefined;
  }
}

async function installInto(directory: string, options: InstallLlamaCppOptions): Promise<LlamaCpp> {
  const parent = dirname(directory);
  const { variables = childVariables(), signal, onProgress } = options;
  const npm = await findNpm(variables);
  await removeLeftovers(parent);
  await checkDiskSpace([
    { directory: parent, bytes: LLAMA_CPP_BYTES, purpose: `llama.cpp ${LLAMA_CPP_RELEASE}` },
  ]);
  const temporary = join(parent, `.llama-cpp-${randomBytes(4).toString('hex')}`);
  try {
    await mkdir(temporary);
    onProgress?.(`Installing llama.cpp ${LLAMA_CPP_RELEASE} with npm (62 MB to download, once)`);
    await installPackages(npm, temporary, variables, signal);
    onProgress?.('Extracting the converter of llama.cpp');
    await extractGitBundle({
      bundle: join(temporary, 'node_modules', 'node-llama-cpp', 'llama', 'gitRelease.bundle'),
      commit: LLAMA_CPP_COMMIT,
      directory: join(temporary, 'source'),
      paths: SOURCE_PATHS,
    });
    const made = installedLlamaCpp(temporary);
    if (made === undefined) throw new Error('npm reported success, but parts are missing');
    onProgress?.('Trying the libraries of llama.cpp');
    await checkLlamaCpp(made, variables, signal);
    await moveIntoPlace(temporary, directory);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  const installed = installedLlamaCpp(directory);
  assert(installed !== undefined, 'llama.cpp is not where it was renamed to');
  return installed;
}

async function installPackages(
  npm: string,
  directory: string,
  variables: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { manifest, lock } = lockForPlatform();
  await writeFile(join(directory, 'package.json'), manifest);
  await writeFile(join(directory, 'package-lock.json'), lock);
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--no-progress'];
  await run({
    file: npm,
    args: ['ci', ...flags, '--no-update-notifier', '--loglevel=http'],
    // npm is a script for the first Node on PATH, which may be too old for it.
    env: {
      ...variables,
      PATH: [dirname(process.execPath), variables['PATH']].filter(Boolean).join(delimiter),
    },
    cwd: directory,
    signal,
    stallTimeoutMs: STALL_TIMEOUT_MS,
  });
}

/**
 * The lock, with the packages of this platform as dependencies: as optional ones they would go by
 * `--omit=optional`, which keeps 700 MB of builds for graphics processors away.
 */
function lockForPlatform(): { readonly manifest: string; readonly lock: string } {
  interface Root {
    dependencies: Record<string, string>;
    optionalDependencies?: Record<string, string>;
  }
  const files = readLlamaCppLock();
  const manifest = JSON.parse(files.manifest) as Root;
  const lock = JSON.parse(files.lock) as {
    packages: Record<string, { optional?: boolean }> & { '': Root };
  };
  for (const name of Object.values(platformPackages())) {
    for (const root of [manifest, lock.packages['']]) {
      root.dependencies[name] = root.optionalDependencies?.[name] ?? '';
    }
    delete lock.packages[`node_modules/${name}`]?.optional;
  }
  delete manifest.optionalDependencies;
  delete lock.packages[''].optionalDependencies;
  return { manifest: JSON.stringify(manifest), lock: JSON.stringify(lock) };
}

/** npm beside this Node, else on PATH. */
async function findNpm(variables: Readonly<Record<string, string>>): Promise<string> {
  const npm =
    (await findOnPath('npm', dirname(process.execPath))) ??
    (await findOnPath('npm', variables['PATH']));
  if (npm !== undefined) return npm;
  throw new WeldlineError(
    'tool.not-found',
    'Installing llama.cpp needs npm, which comes with Node.js and is not on PATH here. Install it ' +
      `(on Debian and Ubuntu it may be a package of its own: apt install npm). ${BY_HAND}`,
  );
}

/**
 * Loads the libraries in a process of their own.
 *
 * @throws WeldlineError `tool.failed` when they do not load, `tool.wrong-version` when they are not
 *   those of the release, `tool.not-found` for a llama.cpp without libraries
 */
export async function checkLlamaCpp(
  { modules, libraries }: LlamaCpp,
  variables: Readonly<Record<string, string>>,
  signal?: AbortSignal,
): Promise<void> {
  if (modules === undefined || libraries === undefined) {
    throw new WeldlineError('tool.not-found', 'This llama.cpp has programs only, no libraries.');
  }
  const extension = MODULE.endsWith('.ts') ? 'ts' : 'js';
  const program = fileURLToPath(new URL(`./check-llama-cpp.${extension}`, MODULE));
  const output = await run({
    file: process.execPath,
    args: [program, modules, libraries],
    env: variables,
    signal,
    timeoutMs: CHECK_TIMEOUT_MS,
  });
  const { devices, ...found } = JSON.parse(output) as Record<string, unknown>;
  if (isDeepStrictEqual(found, LIBRARY_FACTS)) {
    if (devices !== 0) return;
    throw new WeldlineError('tool.failed', `${libraries} has no library for this processor.`);
  }
  throw new WeldlineError(
    'tool.wrong-version',
    `${libraries} is not llama.cpp ${LLAMA_CPP_RELEASE}: it says ${output.trim()}.`,
  );
}

async function moveIntoPlace(temporary: string, directory: string): Promise<void> {
  // What stands there lacks parts or does not work, or it would have been used.
  const old = join(dirname(directory), `.llama-cpp-${randomBytes(4).toString('hex')}`);
  try {
    await rename(directory, old);
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
  await rename(temporary, directory);
  await rm(old, { recursive: true, force: true });
}

/** Under the lock, what others began was left by processes that were killed. */
async function removeLeftovers(parent: string): Promise<void> {
  for (const entry of await readdir(parent)) {
    if (/^\.llama-cpp-[0-9a-f]{8}$/.test(entry)) {
      await rm(join(parent, entry), { recursive: true, force: true });
    }
  }
}

function installFailed(error: unknown, directory: string): WeldlineError {
  const { code, message } = error as { code?: unknown; message: string };
  const isKnown = error instanceof WeldlineError;
  if (isKnown && (code === 'tool.not-found' || code === 'disk.full')) return error;
  if (code === 'ENOSPC' || /\bENOSPC\b/.test(message)) {
    return new WeldlineError(
      'disk.full',
      `There is no space left for llama.cpp, in ${dirname(directory)} or in npm's cache. ` +
        'Free 250 MB, or set WELDLINE_TOOLS to another place.',
      { cause: error },
    );
  }
  return new WeldlineError(
    'tool.install-failed',
    `llama.cpp could not be installed into ${basename(directory)} of ${dirname(directory)}: ` +
      `${message}\n${adviceFor(message)} ${BY_HAND}`,
    { cause: error },
  );
}

/** By what npm calls its errors. */
function adviceFor(message: string): string {
  if (/\bEINTEGRITY\b/.test(message)) {
    return (
      'A package is not the one that weldline was tested with: the registry or mirror in use ' +
      'serves another file. Check `npm config get registry`.'
    );
  }
  if (/\b(E404|ETARGET)\b/.test(message)) {
    return 'The registry in use lacks a package: check `npm config get registry`.';
  }
  if (/\b(ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|E40[137])\b/.test(message)) {
    return 'npm does not reach its registry: check `npm ping`, HTTPS_PROXY, and its login.';
  }
  if (/\b(EACCES|EPERM|EROFS|EEXIST|ENOTDIR)\b/.test(message)) {
    return 'Make the directory writable, or set WELDLINE_TOOLS to another place.';
  }
  return 'Run it again: what was downloaded is kept.';
}
