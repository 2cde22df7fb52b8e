import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CacheState } from './measurement.ts';
import { runProcess } from './run-process.ts';

const WARMING_BUFFER_BYTES = 8 * 1024 * 1024;

const EVICT_FILES = `
import os, sys
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
`;

/** How this machine lets a benchmark empty the page cache. */
export interface Eviction {
  /** For the report. */
  readonly name: string;
  evict(files: readonly string[], signal: AbortSignal): Promise<void>;
}

/**
 * The inputs leave the cache, file by file. Programs and directories stay in it: a cold checkpoint is
 * what is compared, not the time to load Node or cp.
 *
 * @returns undefined where cold runs cannot be had: no Python with posix_fadvise
 */
export function findEviction(): Eviction | undefined {
  const probe = spawnSync('python3', ['-c', 'import os; os.posix_fadvise']);
  if (probe.status !== 0) return undefined;
  return {
    name: 'posix_fadvise of the inputs',
    async evict(files, signal) {
      await runProcess('python3', ['-c', EVICT_FILES, ...files], { signal });
    },
  };
}

/**
 * Writes all dirty pages, so that nobody pays for another's, and brings the inputs into the cache
 * or out of it.
 * @param paths files, and directories with all that is below them
 * @throws Error for a cold cache where there is no way to one
 */
export async function prepareCache(
  state: CacheState,
  paths: readonly string[],
  eviction: Eviction | undefined,
  signal: AbortSignal,
): Promise<void> {
  await runProcess('sync', [], { signal });
  const files = (await Promise.all(paths.map(filesBelow))).flat();
  if (state === 'warm') {
    for (const file of files) await readFile(file, signal);
  } else if (eviction === undefined) {
    throw new Error(NO_EVICTION);
  } else {
    await eviction.evict(files, signal);
  }
}

export const NO_EVICTION =
  'Files cannot be evicted from the page cache here: that takes Linux and a python3 on PATH.';

async function filesBelow(path: string): Promise<string[]> {
  if (statSync(path).isFile()) return [path];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
}

async function readFile(path: string, signal: AbortSignal): Promise<void> {
  const buffer = new Uint8Array(WARMING_BUFFER_BYTES);
  const file = await open(path, 'r');
  try {
    while ((await file.read(buffer)).bytesRead > 0) signal.throwIfAborted();
  } finally {
    await file.close();
  }
}
