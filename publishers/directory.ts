import { checkWritable, DirectoryPublisher } from './directory/directory-publisher.ts';

/** @throws WeldlineError `publish.not-writable` */
export const checkTarget = checkWritable;

/**
 * Checks that a version is not taken by a release of another plan, before that is merged.
 * @throws WeldlineError `publish.conflict`
 */
export async function checkVersion(
  target: string,
  artefact: string,
  planDigest: string,
): Promise<void> {
  await new DirectoryPublisher(target).check({ release: artefact }, planDigest);
}
