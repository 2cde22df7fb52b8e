import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const THREADS = ['merge-worker', 'bands/cut-worker', 'factor-worker'];

/**
 * Compiles what worker threads run into Node's compile cache, once, before any test. A thread that
 * loads a .ts file otherwise strips its types with SWC, which is WebAssembly, and V8 can crash
 * (SIGSEGV) where several threads compile and free that at the same time:
 * https://github.com/nodejs/node/issues/64500. It also starts in a third of the time. The published
 * package holds JavaScript and does neither.
 */
export async function setup(): Promise<void> {
  const directory = fileURLToPath(compileCacheUrl);
  await mkdir(directory, { recursive: true });
  for (const name of THREADS) {
    const path = fileURLToPath(new URL(`../engine/merge/${name}.ts`, import.meta.url));
    // Without a parent it loads its modules and ends.
    await promisify(execFile)(process.execPath, [path], {
      env: { ...process.env, NODE_COMPILE_CACHE: directory },
    });
  }
}

export const compileCacheUrl = new URL('../node_modules/.cache/weldline/code/', import.meta.url);
