import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import { openFileSource } from './file-source.ts';

/** A model has its files at the root or one folder down; deeper trees are something else. */
const DEPTH_MAX = 4;

/** The largest models have some hundred shards. A home directory given by mistake has far more. */
const FILES_MAX = 20_000;

/**
 * The files of a model or adapter in a directory of this machine. Links are followed: the hub cache
 * is made of them. Names that start with a dot are left out (`.git`, `.cache`).
 * @throws WeldlineError `source.not-found`, `source.invalid-reference`, `disk.read-failed`
 */
export async function openModelDirectory(directory: string): Promise<ModelFiles> {
  const sizes = new Map<string, number>();
  await collect(directory, '', 0, sizes);
  return {
    name: directory,
    sizes,
    async open(relativePath) {
      if (!sizes.has(relativePath)) throw noSuchFile(directory, relativePath);
      return openFileSource(path.join(directory, ...relativePath.split('/')));
    },
  };
}

export function noSuchFile(name: string, relativePath: string): WeldlineError {
  return new WeldlineError('source.not-found', `${name} has no file ${relativePath}.`);
}

async function collect(
  root: string,
  folder: string,
  depth: number,
  sizes: Map<string, number>,
): Promise<void> {
  const names = await readdir(path.join(root, folder)).catch((error: unknown) => {
    throw unreadable(path.join(root, folder), error);
  });
  for (const name of names.toSorted()) {
    if (name.startsWith('.')) continue;
    const relativePath = folder === '' ? name : `${folder}/${name}`;
    // A link that leads nowhere is not a file: the snapshot of an unfinished download has some.
    const stats = await stat(path.join(root, relativePath)).catch(() => undefined);
    if (stats?.isDirectory() && depth < DEPTH_MAX) {
      await collect(root, relativePath, depth + 1, sizes);
    } else if (stats?.isFile()) {
      sizes.set(relativePath, stats.size);
      if (sizes.size > FILES_MAX) throw tooMany(root);
    }
  }
}

function unreadable(directory: string, error: unknown): WeldlineError {
  const code = systemErrorCode(error);
  if (code === 'ENOTDIR') {
    return new WeldlineError(
      'source.not-found',
      `${directory} is a file. Give the directory that holds it.`,
      { cause: error },
    );
  }
  return code === 'ENOENT'
    ? new WeldlineError(
        'source.not-found',
        `There is no directory ${directory}. A model on the hub is written hf://org/name.`,
        { cause: error },
      )
    : new WeldlineError(
        'disk.read-failed',
        `The directory ${directory} cannot be listed (${code ?? String(error)}).`,
        { cause: error },
      );
}

function tooMany(directory: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${directory} holds more than ${FILES_MAX} files: it is not the directory of one model.`,
  );
}
