import { WeldlineError } from '../errors.ts';

/** Enough of a file to tell what it really is. */
export const FILE_START_BYTES = 64;

const GIT_LFS_POINTER = 'version https://git-lfs';

/**
 * Says what a file that cannot be safetensors really is, from its first bytes: the cases people
 * meet are a Git LFS pointer, a PyTorch pickle and a web page saved in its place.
 */
export function diagnoseStart(start: Uint8Array, where: string): WeldlineError | undefined {
  const text = new TextDecoder('latin1').decode(start);
  if (text.startsWith(GIT_LFS_POINTER)) {
    return new WeldlineError(
      'safetensors.git-lfs-pointer',
      `${where} is a Git LFS pointer, not the weights. Run "git lfs pull" in its repository, or ` +
        'download the file from the hub.',
    );
  }
  const isZip = text.startsWith('PK\x03\x04');
  // 0x80 and the protocol number. Bytes 4 to 7 are zero in the length of any real header.
  const isPickle =
    start[0] === 0x80 && [2, 3, 4, 5].includes(start[1] ?? 0) && start.subarray(4, 8).some(Boolean);
  if (isZip || isPickle) {
    return new WeldlineError(
      'safetensors.pickle',
      `${where} is a PyTorch pickle under a safetensors name. Weldline never executes pickles; ` +
        'save the weights with safetensors.',
    );
  }
  return undefined;
}
