import {
  compareSignedFiles,
  SIGNATURE_FILE,
  type Trust,
  verifyModelSignature,
} from '../attest/model-signature.ts';
import { parseModelSignature } from '../attest/parse-signature.ts';
import { readTextFile } from '../engine/model-files.ts';
import type { FoundFile } from './artefact-digests.ts';
import { PRUNED_FILE, wasPruned } from './check-files.ts';
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
  const signature = parseModelSignature(text);
  // Anybody can add the file that says so: it excuses weights that are gone, and nothing else.
  const pruned = signature.files.filter(({ path }) => wasPruned(path, found));
  const here = [...found].filter(([path]) => path !== PRUNED_FILE);
  const listed = [...here.map(([path, { sha256 }]) => ({ path, sha256 })), ...pruned];
  if (trust === undefined) {
    compareSignedFiles(signature, listed);
    return notChecked(
      'signed, and what was signed is what is here, but nothing was given to check by whom: name ' +
        '--key, or --identity and --issuer',
    );
  }
  const { signedBy, filesListed } = await verifyModelSignature(text, { files: listed, trust });
  const gone = pruned.length === 0 ? '' : `, ${pruned.length} of them pruned since`;
  return verified(`${filesListed} files are signed by ${signedBy}${gone}`);
}
