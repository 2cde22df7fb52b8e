import { WeldlineError } from '../engine/errors.ts';

/** The command line cannot be carried out as it is. */
export function usage(message: string): WeldlineError {
  return new WeldlineError('cli.usage', message);
}
