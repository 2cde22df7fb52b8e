import { mkdir, readdir, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { toWriteError } from '../disk-errors.ts';
import { syncDirectory } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import type { Manifest } from '../manifest.ts';
import { readManifest } from '../verify/verify-merge.ts';
import type { MergeDirectory } from './shard-file.ts';

/** A directory where a merge grows until it is renamed to its output. */
export interface Staging extends MergeDirectory {
  readonly root: string;
}

export function stagingAt(root: string): Staging {
  return { root, files: join(root, 'files'), journals: join(root, 'journals') };
}

/**
 * Staging beside an output, on the same volume so that the last step is a rename. Named after the
 * plan: the same merge finds it again, another one does not.
 */
export function stagingBeside(output: string, planDigest: string): Staging {
  return stagingAt(
    join(dirname(output), `.${basename(output)}.weldline-${planDigest.slice(0, 12)}`),
  );
}

/**
 * Looks at the place of an output.
 *
 * @returns the manifest of a finished merge of the same plan; undefined if the place is free
 * @throws WeldlineError `output.exists` if something else is there, `output.inside-input` if it
 *   lies in an input's directory
 */
export async function inspectOutput(
  output: string,
  planDigest: string,
  roots: readonly string[],
): Promise<Manifest | undefined> {
  const place = await realPathOf(output);
  for (const root of roots) {
    const input = await realPathOf(root);
    if (place === input || place.startsWith(input + sep)) {
      throw new WeldlineError(
        'output.inside-input',
        `The output ${output} lies in the input ${root}, and nothing is written into inputs. ` +
          'Choose another place.',
      );
    }
  }
  let entries: string[];
  try {
    entries = await readdir(output);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    if (code === 'ENOTDIR') throw alreadyThere(output, 'a file');
    throw toWriteError(error, output);
  }
  if (entries.length === 0) return undefined;
  const manifest = await readManifest(output).catch(() => undefined);
  if (manifest?.plan === planDigest) return manifest;
  throw alreadyThere(
    output,
    manifest === undefined ? 'a directory with other files' : 'another merge',
  );
}

function alreadyThere(output: string, what: string): WeldlineError {
  return new WeldlineError(
    'output.exists',
    `${output} exists and is ${what}; weldline does not overwrite it. Remove it or choose another ` +
      'output.',
  );
}

/** The real path of something that may not exist yet. */
async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(await realPathOf(parent), basename(path));
  }
}

/** Gives a sealed merge its final name, durably, and removes what is left of its staging. */
export async function moveIntoPlace(staging: Staging, output: string): Promise<void> {
  try {
    await mkdir(dirname(output), { recursive: true });
    await rename(staging.files, output);
    await syncDirectory(dirname(output));
    await rm(staging.root, { recursive: true, force: true });
  } catch (error) {
    throw toWriteError(error, output);
  }
}
