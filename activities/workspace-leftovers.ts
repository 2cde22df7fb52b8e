import { randomBytes } from 'node:crypto';
import { lstat, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { toReadError, toWriteError } from '../engine/disk-errors.ts';
import { syncDirectory } from '../engine/durable-files.ts';
import { systemErrorCode } from '../engine/errors.ts';
import { conversionDirectory, evaluationDirectory, mergesDirectory } from './workspace.ts';

/** Something in the workspace that can be made again. */
export interface Leftover {
  readonly kind: 'merge' | 'conversion' | 'distributions';
  readonly path: string;
  readonly bytes: number;
  /** When something in it was last written, milliseconds since the epoch. */
  readonly writtenAtMs: number;
}

/** What is on its way out, and was not removed to the end. */
const REMOVED = /^\.removed-[0-9a-f]{12}$/;

/**
 * What takes space in a home and follows from recipes and their inputs: merges with what has grown of
 * them, conversions, and the distributions of evaluations. Answers, results, decisions and reports
 * are small, and stay; so do adapters, which are in the Hugging Face cache.
 */
export async function findLeftovers(home: string): Promise<readonly Leftover[]> {
  const merges = await entriesOf(mergesDirectory(home));
  const conversions = await entriesOf(conversionDirectory(home));
  const evaluations = await entriesOf(evaluationDirectory(home));
  const places = [
    ...merges.map((path) => ({ kind: 'merge' as const, path })),
    ...conversions.map((path) => ({ kind: 'conversion' as const, path })),
    // Not in the store itself: its entries are folders of suites, and records.
    ...(await Promise.all(evaluations.map(entriesOf)))
      .flat()
      .filter((path) => basename(path) === 'distributions' || isRemoved({ path }))
      .map((path) => ({ kind: 'distributions' as const, path })),
  ];
  const leftovers: Leftover[] = [];
  for (const place of places) {
    const size = await measure(place.path);
    if (size !== undefined) leftovers.push({ ...place, ...size });
  }
  return leftovers;
}

/** Removes one so that nobody finds half of it: it gets another name first. */
export async function removeLeftover({ path }: Leftover): Promise<void> {
  const away = join(dirname(path), `.removed-${randomBytes(6).toString('hex')}`);
  try {
    await rename(path, away);
    await syncDirectory(dirname(path));
    await rm(away, { recursive: true, force: true });
  } catch (error) {
    throw toWriteError(error, path);
  }
}

/** Whether an earlier removal was cut off here; there is nothing in it that anybody may use. */
export function isRemoved({ path }: Pick<Leftover, 'path'>): boolean {
  return REMOVED.test(basename(path));
}

async function entriesOf(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(directory, name));
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw toReadError(error, directory);
  }
}

/** Undefined for what is not there. Blocks are counted, since files that grow have holes. */
async function measure(
  directory: string,
): Promise<Pick<Leftover, 'bytes' | 'writtenAtMs'> | undefined> {
  try {
    let bytes = 0;
    let writtenAtMs = (await lstat(directory)).mtimeMs;
    for (const name of await readdir(directory, { recursive: true })) {
      const stats = await lstat(join(directory, name));
      bytes += stats.isFile() ? stats.blocks * 512 : 0;
      writtenAtMs = Math.max(writtenAtMs, stats.mtimeMs);
    }
    return { bytes, writtenAtMs };
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw toReadError(error, directory);
  }
}
