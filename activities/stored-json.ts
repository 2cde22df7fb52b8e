import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256Of } from '../engine/canonical-json.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';

/**
 * Keeps a value that a history has no room for under the digest of its text.
 * @returns the digest, by which `readStored` finds it
 */
export async function store(directory: string, value: unknown): Promise<string> {
  const text = `${JSON.stringify(value)}\n`;
  const digest = sha256Of(text);
  await mkdir(directory, { recursive: true });
  await writeFileDurably(join(directory, `${digest}.json`), text);
  return digest;
}

/** @throws WeldlineError `disk.read-failed`, `verify.digest-mismatch` if it is not what was kept */
export async function readStored<T>(directory: string, digest: string): Promise<T> {
  const path = join(directory, `${digest}.json`);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw toReadError(error, path);
  }
  if (sha256Of(text) !== digest) {
    throw new WeldlineError(
      'verify.digest-mismatch',
      `${path} is not what weldline wrote. Remove it and release again.`,
    );
  }
  return JSON.parse(text) as T;
}
