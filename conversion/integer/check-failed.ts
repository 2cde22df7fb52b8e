import { WeldlineError } from '../../engine/errors.ts';

/** What was read back is not what it should be. */
export function checkFailed(problem: string): WeldlineError {
  return new WeldlineError(
    'convert.check-failed',
    `The quantised checkpoint was read back, and ${problem}. Nothing of it is kept. If this comes ` +
      'again, the versions of the tools do not fit the model: report it with the log.',
  );
}
