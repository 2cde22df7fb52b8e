/**
 * Merges in a process of its own, for tests that kill it. Prints a line per step of progress.
 *
 *     node merge-child.ts BASE ADAPTER OUTPUT THREADS
 */
import { writeSync } from 'node:fs';
import { mergeDirectories } from '../doubles/merge-directories.ts';

const [base, adapter, output, threads] = process.argv.slice(2);
if (base === undefined || adapter === undefined || output === undefined) {
  throw new Error('usage: merge-child.ts BASE ADAPTER OUTPUT THREADS');
}

/** Small, so that there are many steps between which to be killed. */
const windowBytes = 256 * 1024;

await mergeDirectories({
  base,
  adapter,
  output,
  threads: Number(threads),
  windowBytes,
  onProgress: ({ shard, bytesDone, bytesTotal }) => {
    writeSync(1, `${JSON.stringify({ shard, bytesDone, bytesTotal })}\n`);
  },
});
