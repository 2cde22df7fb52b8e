import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { toReadError } from '../../engine/disk-errors.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { ArtefactFile } from '../publisher.ts';

/**
 * The bytes of a file, compared with its size and digest: its last piece comes only if they agree.
 * @param report is told how many bytes went so far
 * @throws WeldlineError `publish.verify-failed`, `disk.read-failed`
 */
export async function* fileBody(
  file: ArtefactFile,
  report: (bytesDone: number) => void,
): AsyncIterable<Uint8Array> {
  const hash = createHash('sha256');
  let bytes = 0;
  let held: Buffer | undefined;
  try {
    for await (const piece of createReadStream(file.source)) {
      if (held !== undefined) yield held;
      report(bytes);
      held = piece as Buffer;
      hash.update(held);
      bytes += held.length;
      if (bytes > file.size) break;
    }
  } catch (error) {
    throw error instanceof WeldlineError ? error : toReadError(error, file.source);
  }
  if (bytes !== file.size || hash.digest('hex') !== file.sha256) {
    throw new WeldlineError(
      'publish.verify-failed',
      `${file.path} is no longer what was to be published: ${file.source} has been changed. Run the ` +
        'release again.',
    );
  }
  if (held !== undefined) yield held;
}
