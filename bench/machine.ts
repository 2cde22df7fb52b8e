import { spawnSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os';
import { ENGINE_VERSION } from '../engine/version.ts';

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly fileSystem: string;
  readonly versions: Readonly<Record<string, string>>;
}

/** @param python interpreter of the oracle, if it is set up */
export function describeMachine(directory: string, python: string | undefined): Machine {
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${type()} ${release()}`,
    fileSystem: fileSystemOf(directory),
    versions: {
      node: process.versions.node,
      weldline: ENGINE_VERSION,
      ...(python === undefined ? {} : pythonVersions(python)),
    },
  };
}

export function loadAverage(): number {
  return loadavg()[0] ?? 0;
}

/** `ext4`, `xfs`, …; only GNU's df tells. */
function fileSystemOf(directory: string): string {
  const { stdout } = spawnSync('df', ['--output=fstype', directory], { encoding: 'utf8' });
  return stdout?.trim().split('\n')[1]?.trim() ?? 'unknown';
}

function pythonVersions(python: string): Record<string, string> {
  const script =
    'import json, importlib.metadata as m;' +
    "print(json.dumps({n: m.version(n) for n in ('torch', 'transformers', 'peft')}))";
  const { stdout, status, stderr } = spawnSync(python, ['-c', script], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${python} cannot name its packages:\n${stderr}`);
  return JSON.parse(stdout) as Record<string, string>;
}
