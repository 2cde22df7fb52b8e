import { join } from 'node:path';
import { childVariables, type Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { findOnPath } from './find-on-path.ts';
import { installTemporalCli, TEMPORAL_CLI_VERSION } from './install-temporal-cli.ts';
import { run } from './run.ts';

/** The oldest version the tests have run against; older ones lack flags the server is given. */
export const TEMPORAL_CLI_VERSION_MIN = '1.5.1';
const PROBE_TIMEOUT_MS = 30_000;

export interface TemporalCli {
  path: string;
  /** `1.9.1` */
  version: string;
  /** WELDLINE_TEMPORAL_CLI, the PATH, or weldline's own tools directory. */
  origin: 'setting' | 'path' | 'installed';
}

export interface TemporalCliOptions {
  environment: Pick<Environment, 'toolsDirectory' | 'python' | 'temporalCli'>;
  /** The environment for the programs run on the way; its PATH is searched. */
  variables?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
  /** One line per step, for people. */
  onProgress?: ((line: string) => void) | undefined;
}

/**
 * The Temporal CLI to run the embedded server with, installed first when the machine has none.
 *
 * @throws WeldlineError `tool.not-found`, `tool.wrong-version` or `tool.install-failed`
 */
export async function ensureTemporalCli(options: TemporalCliOptions): Promise<TemporalCli> {
  const found = await findTemporalCli(options);
  if (found !== undefined) return found;
  const { toolsDirectory, python } = options.environment;
  const variables = options.variables ?? childVariables();
  const directory = installDirectory(toolsDirectory);
  await installTemporalCli({ ...options, directory, python, variables });
  return await probe(join(directory, 'temporal'), 'installed', options);
}

/**
 * The Temporal CLI this machine already has: the one the user set, else a `temporal` on PATH that
 * is new enough, else the one installed earlier.
 *
 * @throws WeldlineError `tool.not-found` or `tool.wrong-version` about WELDLINE_TEMPORAL_CLI only
 */
export async function findTemporalCli(
  options: TemporalCliOptions,
): Promise<TemporalCli | undefined> {
  const { toolsDirectory, temporalCli } = options.environment;
  const variables = options.variables ?? childVariables();
  if (temporalCli !== undefined) return await probeSetting(temporalCli, options);

  const onPath = await findOnPath('temporal', variables['PATH']);
  const candidates: [path: string | undefined, origin: TemporalCli['origin']][] = [
    [onPath, 'path'],
    [await findOnPath('temporal', installDirectory(toolsDirectory)), 'installed'],
  ];
  for (const [path, origin] of candidates) {
    if (path === undefined) continue;
    try {
      return await probe(path, origin, options);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof WeldlineError)) throw error;
      options.onProgress?.(`Passing over ${path}: ${error.message}`);
    }
  }
  return undefined;
}

function installDirectory(tools: string): string {
  return join(tools, `temporal-cli-${TEMPORAL_CLI_VERSION}`);
}

async function probeSetting(path: string, options: TemporalCliOptions): Promise<TemporalCli> {
  try {
    return await probe(path, 'setting', options);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof WeldlineError)) throw error;
    throw new WeldlineError(
      error.code === 'tool.wrong-version' ? 'tool.wrong-version' : 'tool.not-found',
      `WELDLINE_TEMPORAL_CLI: ${error.message} Correct it, or unset it to let weldline find one.`,
      { cause: error },
    );
  }
}

async function probe(
  path: string,
  origin: TemporalCli['origin'],
  options: TemporalCliOptions,
): Promise<TemporalCli> {
  const output = await run({
    file: path,
    args: ['--version'],
    env: { ...(options.variables ?? childVariables()), TEMPORAL_VERSION_CHECK_DISABLED: '1' },
    signal: options.signal,
    timeoutMs: PROBE_TIMEOUT_MS,
  });
  const version = /^temporal version v?(\d+\.\d+\.\d+)/m.exec(output)?.[1];
  if (version === undefined) {
    throw new WeldlineError(
      'tool.wrong-version',
      `${path} does not say that it is the Temporal CLI; \`${path} --version\` printed ` +
        `"${output.trim().slice(0, 100)}".`,
    );
  }
  if (isOlder(version, TEMPORAL_CLI_VERSION_MIN)) {
    throw new WeldlineError(
      'tool.wrong-version',
      `${path} is Temporal CLI ${version}; weldline needs ${TEMPORAL_CLI_VERSION_MIN} or newer.`,
    );
  }
  return { path, version, origin };
}

/** Compares `major.minor.patch`. */
export function isOlder(version: string, than: string): boolean {
  const parts = version.split('.').map(Number);
  for (const [index, wanted] of than.split('.').map(Number).entries()) {
    const part = parts[index] ?? 0;
    if (part !== wanted) return part < wanted;
  }
  return false;
}
