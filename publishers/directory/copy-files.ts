import { rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { toReadError } from '../../engine/disk-errors.ts';
import { copyFileDurably, digestFile, syncDirectory } from '../../engine/durable-files.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { ArtefactFile, PublishOptions } from '../publisher.ts';
import { absentAs } from './read-artefact.ts';

/**
 * Copies files into a directory and compares what arrived. One that is there with its bytes is not
 * copied again.
 *
 * Not links: what people do to a published file must not reach the workspace.
 *
 * @returns bytes that were copied
 * @throws WeldlineError `source.not-found`, `publish.verify-failed`; errors of the file system
 */
export async function copyFiles(
  files: readonly ArtefactFile[],
  directory: string,
  { signal, onProgress }: Pick<PublishOptions, 'signal' | 'onProgress'>,
): Promise<number> {
  const bytesTotal = files.reduce((sum, { size }) => sum + size, 0);
  let bytesBefore = 0;
  let bytesSent = 0;
  for (const file of files) {
    let read = 0;
    const report = (count: number): void => {
      read += count;
      const bytesDone = bytesBefore + Math.min(read, file.size);
      onProgress({ item: file.path, bytesDone, bytesTotal });
    };
    report(0);
    signal.throwIfAborted();
    const target = join(directory, file.path);
    const isThere = async () => hasBytes(target, file, signal, report);
    if (!(await isThere())) {
      await rm(target, { force: true });
      await requireSource(file);
      await copyFileDurably(file.source, target);
      read = 0;
      if (!(await isThere())) throw differs(file);
      bytesSent += file.size;
    }
    bytesBefore += file.size;
  }
  const folders = new Set(files.map(({ path }) => join(directory, dirname(path))));
  for (const folder of folders) await syncDirectory(folder);
  return bytesSent;
}

async function hasBytes(
  path: string,
  { size, sha256 }: ArtefactFile,
  signal: AbortSignal,
  onBytes: (count: number) => void,
): Promise<boolean> {
  const stats = await absentAs(undefined, stat(path));
  if (stats?.size !== size) return false;
  return (await digestFile(path, { signal, onBytes })).sha256 === sha256;
}

async function requireSource({ source }: ArtefactFile): Promise<void> {
  await stat(source).catch((error: unknown) => {
    throw toReadError(error, source);
  });
}

function differs({ source }: ArtefactFile): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `A copy of ${source} is not the file that was released: it, or what was copied, has changed. ` +
      'Nothing is published. Release again; if it happens again, check the disk.',
  );
}
