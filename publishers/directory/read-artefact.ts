import { lstat, open } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode } from '../../engine/errors.ts';
import { RELEASE_FILE } from '../publisher.ts';
import {
  PRUNED_FILE,
  parseReleaseRecord,
  RELEASE_RECORD_BYTES_MAX,
  type ReleaseRecord,
} from '../release-record.ts';
import { toPublishError } from './directory-errors.ts';

/** What has the name of an artefact in a directory. */
export type Occupant =
  | { readonly kind: 'nothing' }
  /** A directory of somebody else, an alias, a release whose record is damaged. */
  | { readonly kind: 'other' }
  | { readonly kind: 'artefact'; readonly record: ReleaseRecord; readonly isPruned: boolean };

/**
 * @param location path of an artefact
 * @throws WeldlineError if it cannot be read
 */
export async function occupantOf(location: string): Promise<Occupant> {
  try {
    const stats = await absentAs(undefined, lstat(location));
    if (stats === undefined) return { kind: 'nothing' };
    // A link is an alias: what is behind it has a name of its own.
    if (!stats.isDirectory()) return { kind: 'other' };
    const text = await absentAs(undefined, readRecord(join(location, RELEASE_FILE)));
    const record = text === undefined ? undefined : parseReleaseRecord(text);
    if (record === undefined) return { kind: 'other' };
    const pruned = await absentAs(undefined, lstat(join(location, PRUNED_FILE)));
    return { kind: 'artefact', record, isPruned: pruned !== undefined };
  } catch (error) {
    throw toPublishError(error, location);
  }
}

async function readRecord(path: string): Promise<string | undefined> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    return size > RELEASE_RECORD_BYTES_MAX ? undefined : await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

/** @param value stands for what does not exist */
export async function absentAs<T, U>(value: U, reading: Promise<T>): Promise<T | U> {
  try {
    return await reading;
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return value;
    throw error;
  }
}
