import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, symlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { childVariables } from '../config/environment.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { findOnPath } from './find-on-path.ts';
import { withInstallLock } from './install-lock.ts';
import type { LlamaCpp } from './llama-cpp.ts';
import { LLAMA_CPP_RELEASE, PROGRAM_SOURCES } from './llama-cpp-release.ts';
import { run } from './run.ts';

/** The largest takes 10 s of a processor. */
const COMPILE_TIMEOUT_MS = 10 * 60_000;
const TRIAL_TIMEOUT_MS = 60_000;
const COMPILERS = ['c++', 'g++', 'clang++'];
const INCLUDES = ['include', 'common', 'ggml/include', 'vendor'];
const LIBRARIES = ['libllama-common', 'libllama', 'libggml', 'libggml-base'];

export interface BuildLlamaProgramsOptions {
  /** The environment of the compiler; PATH is searched for it. */
  variables?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
  onProgress?: ((line: string) => void) | undefined;
}

/**
 * llama.cpp with programs that the npm packages lack: compiled from llama.cpp's own source in them and
 * linked against their libraries, in seconds. They are kept beside the libraries.
 *
 * It takes the machine's compiler, since the libraries speak the C++ standard library of GNU; Zig's,
 * which builds the native kernel, has another.
 *
 * @param names of `llama-quantize`, `llama-imatrix`, `llama-gguf-split`, `llama-perplexity`
 * @throws WeldlineError `tool.not-found` without a compiler, or where a llama.cpp of the user's own
 *   lacks a program; `tool.install-failed` with the compiler's last lines
 */
export async function buildLlamaPrograms(
  llamaCpp: LlamaCpp,
  names: readonly string[],
  options: BuildLlamaProgramsOptions = {},
): Promise<LlamaCpp> {
  const programs: Record<string, string> = { ...llamaCpp.programs };
  const missing = names.filter((name) => programs[name] === undefined);
  if (missing.length === 0) return llamaCpp;
  const { libraries } = llamaCpp;
  if (libraries === undefined) {
    throw new WeldlineError(
      'tool.not-found',
      `The llama.cpp in ${llamaCpp.directory} has no ${missing.join(' and no ')}. Build it ` +
        `(cmake --build build --target ${missing.join(' ')}), or use the one that ` +
        '`weldline tools install gguf` installs.',
    );
  }
  const directory = join(llamaCpp.directory, 'programs');
  const onWait = () => options.onProgress?.('Waiting for another process that builds llama.cpp');
  const lock = { path: `${directory}.lock`, signal: options.signal, onWait };
  try {
    await withInstallLock(lock, async () => {
      for (const name of missing) {
        programs[name] = join(directory, name);
        if (existsSync(join(directory, name))) continue;
        await build(name, directory, { ...options, libraries, source: llamaCpp.converter });
      }
    });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw buildFailed(error, missing, directory);
  }
  return { ...llamaCpp, programs };
}

interface Parts extends BuildLlamaProgramsOptions {
  /** Directory of the shared libraries. */
  libraries: string;
  /** Directory of llama.cpp's source. */
  source: string;
}

async function build(name: string, directory: string, parts: Parts): Promise<void> {
  const { libraries, source, signal, onProgress, variables = childVariables() } = parts;
  const compiler = await findCompiler(name, variables);
  await mkdir(directory, { recursive: true });
  await linkLibraries(libraries, directory);
  const available = await readdir(libraries);
  const linked = LIBRARIES.map((library) =>
    available.find((file) => file.startsWith(`${library}.`)),
  ).map((file) => join(directory, file ?? ''));
  const temporary = join(directory, `.${name}-${randomBytes(4).toString('hex')}`);
  const origin = process.platform === 'darwin' ? '@executable_path' : '$ORIGIN';
  onProgress?.(`Building ${name} of llama.cpp ${LLAMA_CPP_RELEASE} (seconds, once)`);
  try {
    await run({
      file: compiler,
      args: [
        ...['-std=c++17', '-O2', ...INCLUDES.map((folder) => `-I${join(source, folder)}`)],
        ...(PROGRAM_SOURCES[name] ?? []).map((file) => join(source, file)),
        ...['-o', temporary, ...linked, `-Wl,-rpath,${origin}`, '-pthread'],
      ],
      env: variables,
      cwd: directory,
      signal,
      timeoutMs: COMPILE_TIMEOUT_MS,
    });
    await tryProgram(name, temporary, parts);
    await rename(temporary, join(directory, name));
  } finally {
    await rm(temporary, { force: true });
  }
}

function buildFailed(error: unknown, names: readonly string[], directory: string): WeldlineError {
  if (error instanceof WeldlineError && error.code === 'tool.not-found') return error;
  return new WeldlineError(
    systemErrorCode(error) === 'ENOSPC' ? 'disk.full' : 'tool.install-failed',
    `${names.join(', ')} could not be built in ${directory}: ${(error as Error).message}\nInstall ` +
      `another C++ compiler, or build llama.cpp ${LLAMA_CPP_RELEASE} yourself and set ` +
      'WELDLINE_LLAMA_CPP to its directory.',
    { cause: error },
  );
}

/** Programs look for the libraries of processors beside themselves. */
async function linkLibraries(libraries: string, directory: string): Promise<void> {
  for (const file of await readdir(libraries)) {
    if (!/\.(so|dylib)$/.test(file)) continue;
    try {
      await symlink(relative(directory, join(libraries, file)), join(directory, file));
    } catch (error) {
      if (systemErrorCode(error) !== 'EEXIST') throw error;
    }
  }
}

/** All but llama-quantize print their version; that one prints how it is used, and fails. */
async function tryProgram(name: string, path: string, parts: Parts): Promise<void> {
  const { variables = childVariables(), signal } = parts;
  let output = '';
  const onLine = (line: string) => {
    output += `${line}\n`;
  };
  const args = [name === 'llama-quantize' ? '--help' : '--version'];
  try {
    await run({ file: path, args, env: variables, signal, timeoutMs: TRIAL_TIMEOUT_MS, onLine });
  } catch (error) {
    if (!output.includes('usage:')) throw error;
  }
}

/** @throws WeldlineError `tool.not-found` that says what to install */
export async function findCompiler(
  name: string,
  variables: Readonly<Record<string, string>>,
): Promise<string> {
  for (const compiler of COMPILERS) {
    const path = await findOnPath(compiler, variables['PATH']);
    if (path !== undefined) return path;
  }
  throw new WeldlineError(
    'tool.not-found',
    `${name} is not in the packages of llama.cpp, and building it needs a C++ compiler, of which ` +
      'there is none on PATH. Install one (Debian and Ubuntu: apt install g++; macOS: ' +
      `xcode-select --install), or build llama.cpp ${LLAMA_CPP_RELEASE} yourself and set ` +
      'WELDLINE_LLAMA_CPP to its directory.',
  );
}
