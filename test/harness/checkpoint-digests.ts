import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { digestFile } from '../../engine/durable-files.ts';

/** What a release adds, and the manifest, which names the inputs: they differ where weights may not. */
const RECORDS = [
  ...['weldline.json', 'README.md', 'adapters'],
  ...['bom.cdx.json', 'provenance.intoto.json', 'release.json'],
];

/** Digests of a checkpoint's files, by name. */
export async function checkpointDigests(directory: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const name of (await readdir(directory)).sort()) {
    if (RECORDS.includes(name)) continue;
    found.set(name, (await digestFile(join(directory, name))).sha256);
  }
  return found;
}
