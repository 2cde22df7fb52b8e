import type { FoundFile } from './artefact-digests.ts';
import type { RecordedInput } from './artefact-record.ts';
import { type Finding, failed, namesOf, notChecked, verified } from './claim.ts';

/** Where a release keeps the adapters that went into it. */
export function archivedPath(id: string, path: string): string {
  return `adapters/${id}/${path}`;
}

/** Whether a path is that of a file of an adapter in the archive. */
export function isArchived(path: string, inputs: readonly RecordedInput[]): boolean {
  return inputs.some(({ id, files }) => files.some((file) => archivedPath(id, file.path) === path));
}

/** Checks that the archive of adapters is what was merged, by the digests in the manifest. */
export function checkAdapters(
  inputs: readonly RecordedInput[],
  found: ReadonlyMap<string, FoundFile>,
): Finding {
  const wanted = inputs
    .filter(({ id }) => id !== 'base')
    .flatMap(({ id, files }) =>
      files.map((file) => ({ ...file, path: archivedPath(id, file.path) })),
    );
  if (!wanted.some(({ path }) => found.has(path))) {
    return notChecked('the adapters are not archived here; the manifest names them by digest');
  }
  const wrong = wanted.filter(({ path, sha256 }) => found.get(path)?.sha256 !== sha256);
  if (wrong.length > 0) {
    const names = namesOf(wrong.map(({ path }) => path));
    return failed(
      'verify.digest-mismatch',
      `${names}: missing, or not what the manifest says was merged. Fetch the release again from ` +
        'where it was published.',
    );
  }
  return verified(`${wanted.length} archived files are those that were merged, by digest`);
}
