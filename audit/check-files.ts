import { SIGNATURE_FILE } from '../attest/model-signature.ts';
import { PROVENANCE_FILE } from '../attest/provenance-terms.ts';
import { PRUNED_FILE, RELEASE_FILE } from '../engine/manifest.ts';
import type { FoundFile } from './artefact-digests.ts';
import type { ArtefactRecord, ListedFile } from './artefact-record.ts';
import { isArchived } from './check-adapters.ts';
import { type Finding, failed, namesOf, notChecked, verified } from './claim.ts';

const CARD_FILE = 'README.md';
/** What programs load models or code from; beside a merge that nobody published, the rest is notes. */
const LOADED =
  /\.(?:safetensors|bin|pt|pth|ckpt|gguf|pkl|pickle|joblib|npy|npz|h5|msgpack|onnx|so|dll|dylib|py|pyc|json|jinja|model)$/i;

/** Whether a file is missing because pruning removes such files, which are weights. */
export function wasPruned(path: string, found: ReadonlyMap<string, FoundFile>): boolean {
  const isWeights = /\.(?:safetensors|gguf)$/.test(path) && !path.startsWith('adapters/');
  return isWeights && found.has(PRUNED_FILE) && !found.has(path);
}

/** Whether weights are missing by pruning. The mark alone says nothing: anybody can put it there. */
export function isPruned(
  { files }: ArtefactRecord,
  found: ReadonlyMap<string, FoundFile>,
): boolean {
  return files.some(({ path }) => wasPruned(path, found));
}

/** Checks that every file that is listed is there as it was, and that nothing else is. */
export function checkFiles(record: ArtefactRecord, found: ReadonlyMap<string, FoundFile>): Finding {
  const { listed, contradicted } = listedFiles(record);
  if (contradicted.length > 0) {
    return failed(
      'verify.digest-mismatch',
      `${RELEASE_FILE} and ${record.manifestFile} say different things of ${namesOf(contradicted)}. ` +
        'One of them was changed; fetch the release again from where it was published.',
    );
  }
  const absent = [...listed.keys()].filter((path) => !found.has(path));
  const pruned = absent.filter((path) => wasPruned(path, found));
  const missing = absent.filter((path) => !pruned.includes(path));
  const changed = [...listed].flatMap(([path, { size, sha256 }]) => {
    const file = found.get(path);
    return file === undefined || (file.size === size && file.sha256 === sha256) ? [] : [path];
  });
  const unlisted = [...found.keys()].filter((path) => isForeign(path, record, listed));
  const problems = [
    ...(changed.length > 0 ? [`not the file that was made: ${namesOf(changed)}`] : []),
    ...(missing.length > 0 ? [`missing: ${namesOf(missing)}`] : []),
    ...(unlisted.length > 0 ? [`there, and listed nowhere: ${namesOf(unlisted)}`] : []),
  ];
  if (problems.length > 0) {
    const code = changed.length > 0 ? 'verify.digest-mismatch' : 'verify.inventory-mismatch';
    return failed(code, `${problems.join('; ')}. Fetch it again from where it was published.`);
  }
  const bytes = [...listed.values()].reduce((sum, { size }) => sum + size, 0);
  if (pruned.length > 0) {
    return notChecked(
      `pruned: ${namesOf(pruned)}; the ${listed.size - pruned.length} files that stayed have their ` +
        'digests',
    );
  }
  return verified(`${listed.size} files (${bytes} bytes) have their sizes and digests`);
}

function listedFiles({ release, files }: ArtefactRecord): {
  readonly listed: ReadonlyMap<string, ListedFile>;
  readonly contradicted: readonly string[];
} {
  const listed = new Map<string, ListedFile>();
  const contradicted = new Set<string>();
  for (const file of [...files, ...(release?.files ?? []), ...(release?.contents ?? [])]) {
    const before = listed.get(file.path);
    if (before !== undefined && before.sha256 !== file.sha256) contradicted.add(file.path);
    listed.set(file.path, file);
  }
  return { listed, contradicted: [...contradicted] };
}

function isForeign(
  path: string,
  { release, manifestFile, merge }: ArtefactRecord,
  listed: ReadonlyMap<string, ListedFile>,
): boolean {
  if (listed.has(path)) return false;
  // Their digests are checked as a claim of its own.
  if (isArchived(path, merge?.inputs ?? release?.inputs ?? [])) return false;
  const afterwards = [RELEASE_FILE, PROVENANCE_FILE, SIGNATURE_FILE, PRUNED_FILE];
  if (path === manifestFile || afterwards.includes(path)) return false;
  if (release === undefined) return LOADED.test(path);
  // Releases before 0.2 list no documents.
  return !(release.contents === undefined && path === CARD_FILE);
}
