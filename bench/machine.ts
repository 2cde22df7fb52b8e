import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { ENGINE_VERSION } from '../engine/version.ts';
import { pythonVersions } from './python-contestants.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly fileSystem: string;
  readonly versions: Readonly<Record<string, string>>;
}

/** @param directory on the file system that is measured */
export function describeMachine(directory: string): Machine {
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${type()} ${release()}`,
    fileSystem: fileSystemOf(directory),
    versions: {
      weldline: `${ENGINE_VERSION} (${commit()})`,
      node: process.versions.node,
      ...pythonVersions(),
    },
  };
}

/** Over the last minute. */
export function loadAverage(): number {
  return loadavg()[0] ?? 0;
}

/** Files that git ignores change nothing; results of earlier runs do not either. */
function commit(): string {
  const git = (...args: string[]): string =>
    spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' }).stdout?.trim() ?? '';
  const head = git('rev-parse', '--short', 'HEAD');
  if (head === '') return 'not a git checkout';
  const changed = git('status', '--porcelain', '--', ':!bench/results') !== '';
  return changed ? `${head}, with changes` : head;
}

/** `ext4`, `xfs`, …; only GNU's df tells. */
function fileSystemOf(directory: string): string {
  const { stdout } = spawnSync('df', ['--output=fstype', directory], { encoding: 'utf8' });
  return stdout?.trim().split('\n')[1]?.trim() ?? 'unknown';
}
