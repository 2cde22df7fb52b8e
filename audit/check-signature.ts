import {
  compareSignedFiles,
  SIGNATURE_FILE,
  type Trust,
  verifyModelSignature,
} from '../attest/model-signature.ts';
import { parseModelSignature } from '../attest/parse-signature.ts';
import { PRUNED_FILE } from '../engine/manifest.ts';
import { readTextFile } from '../engine/model-files.ts';
import type { FoundFile } from './artefact-digests.ts';
import { wasPruned } from './check-files.ts';
import { type Finding, failed, notChecked, verified } from './claim.ts';
import type { OpenedArtefact } from './open-artefact.ts';

/** Whom signatures are believed of; undefined compares what is signed, whoever signed it. */
export async function checkSignature(
  { files }: OpenedArtefact,
  found: ReadonlyMap<string, FoundFile>,
  trust: Trust | undefined,
): Promise<Finding> {
  if (!found.has(SIGNATURE_FILE)) {
    return trust === undefined
      ? notChecked('it is not signed')
      : failed(
          'attest.not-covered',
          `there is no ${SIGNATURE_FILE}, so nobody vouches for it. Ask whoever published it.`,
        );
  }
  const text = await readTextFile(files, SIGNATURE_FILE);
  // Who prunes leaves a mark and takes weights away; whatever stayed must be what was signed.
  const listed = [...found]
    .filter(([path]) => path !== PRUNED_FILE)
    .map(([path, { sha256 }]) => ({ path, sha256 }));
  const mayLack = (path: string): boolean => wasPruned(path, found);
  if (trust === undefined) {
    compareSignedFiles(parseModelSignature(text), listed, mayLack);
    return notChecked(
      'signed, and what was signed is what is here, but nothing was given to check by whom: name ' +
        '--key, or --identity and --issuer',
    );
  }
  const { signedBy, filesListed } = await verifyModelSignature(text, {
    files: listed,
    trust,
    mayLack,
  });
  const gone = found.has(PRUNED_FILE) ? '; those that were not pruned are here' : '';
  return verified(`${filesListed} files are signed by ${signedBy}${gone}`);
}
