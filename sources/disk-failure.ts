import { toWriteError, type WriteRemedies } from '../engine/disk-errors.ts';
import { systemErrorCode } from '../engine/errors.ts';

const REMEDIES: WriteRemedies = {
  full:
    'What was downloaded is kept: free some space, or set HF_HUB_CACHE (for models of other places ' +
    'than a hub WELDLINE_HOME) to a larger disk, and run again.',
  other:
    'Check that this user may write there, or set HF_HUB_CACHE (for models of other places than a ' +
    'hub WELDLINE_HOME) to another directory.',
};

/** Runs file operations on `path`, with their failures told in weldline's terms. */
export async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // What the work itself threw, an abort for example, is none of the disk's.
    throw systemErrorCode(error) === undefined ? error : toWriteError(error, path, REMEDIES);
  }
}
