import { readConversionManifest } from '../conversion/conversion-store.ts';
import type { Conversion } from '../conversion/convert-options.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { Converted } from './quality-types.ts';

/**
 * The conversion that a release made, as it lies in the workspace. A release may wait for a person for
 * weeks, and what was made again meanwhile (calibrated on a GPU, say) is not what was judged.
 *
 * @throws WeldlineError `convert.missing` if it is not there any more, or something else is
 */
export async function finishedConversion({
  id,
  directory,
  manifestDigest,
}: Converted): Promise<Conversion> {
  const finished = await readConversionManifest(directory);
  if (finished?.manifestDigest === manifestDigest) return finished;
  throw new WeldlineError(
    'convert.missing',
    `The conversion ${id} in ${directory} ` +
      (finished === undefined
        ? 'is not there any more.'
        : 'was made again since it was evaluated.') +
      ' Release again: what is missing is made and evaluated again.',
  );
}
