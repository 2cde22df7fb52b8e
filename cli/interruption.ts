import { EXIT } from './exit-codes.ts';

/** Thrown (as an abort reason) when a person or a supervisor stops the command. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/**
 * The first SIGINT or SIGTERM asks the work to stop cleanly; a second one ends the process at once,
 * which loses nothing that is journalled.
 */
export function interruptionSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new Interrupted('stopped'));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  return controller.signal;
}
