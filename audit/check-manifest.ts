import { isDeepStrictEqual } from 'node:util';
import { BOM_FILE } from '../attest/bom.ts';
import { SIGNATURE_FILE } from '../attest/model-signature.ts';
import { PROVENANCE_FILE } from '../attest/provenance-terms.ts';
import { PRUNED_FILE, RELEASE_FILE } from '../engine/manifest.ts';
import type { FoundFile } from './artefact-digests.ts';
import type { ArtefactRecord } from './artefact-record.ts';
import { type Finding, failed, notChecked, verified } from './claim.ts';

/** Only releases have them. */
const OF_A_RELEASE = [BOM_FILE, PROVENANCE_FILE, SIGNATURE_FILE, PRUNED_FILE];

/** Checks that `release.json` and the manifest of what was released say the same. */
export function checkManifest(
  record: ArtefactRecord,
  found: ReadonlyMap<string, FoundFile>,
): Finding {
  const { release, manifestFile, manifestDigest, merge } = record;
  if (release === undefined) {
    const left = OF_A_RELEASE.find((path) => found.has(path));
    if (left !== undefined) {
      return failed(
        'verify.inventory-mismatch',
        `there is no ${RELEASE_FILE}, and ${left} is there: it was a release, and that was removed. ` +
          'Fetch it again from where it was published.',
      );
    }
    return notChecked(`there is no ${RELEASE_FILE}: it was never published`);
  }
  const differing = [
    ...(release.manifestDigest === manifestDigest ? [] : [`the digest of ${manifestFile}`]),
    ...(merge === undefined ? [] : differencesFrom(release, merge)),
  ];
  if (differing.length > 0) {
    return failed(
      'verify.digest-mismatch',
      `${RELEASE_FILE} and ${manifestFile} differ: ${differing.join(', ')}. One of them was changed; ` +
        'fetch the release again from where it was published.',
    );
  }
  return verified(`${RELEASE_FILE} is of this ${manifestFile}, and says what it says`);
}

type Release = NonNullable<ArtefactRecord['release']>;
type Merge = NonNullable<ArtefactRecord['merge']>;

function differencesFrom(release: Release, merge: Merge): string[] {
  // The manifest outlives the release it was made for: names and training runs may be others.
  const inputs = (from: Release['inputs'] | Merge['inputs']) =>
    from.map(({ id, files }) => ({ id, files }));
  const pairs: [string, unknown, unknown][] = [
    ['the plan', release.plan, merge.plan],
    ['the engine', release.engine, merge.engine],
    ['the options', release.options, merge.options],
    ['the inputs', inputs(release.inputs), inputs(merge.inputs)],
  ];
  return pairs.flatMap(([what, one, other]) => (isDeepStrictEqual(one, other) ? [] : [what]));
}
