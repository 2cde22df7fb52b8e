import { WeldlineError } from './errors.ts';

/**
 * Any error as one of weldline's: what has no code is a bug, save that a kernel was never built,
 * which kernels, below the engine, cannot say with a code.
 */
export function toWeldlineError(error: unknown): WeldlineError {
  if (error instanceof WeldlineError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && error.name === 'KernelMissingError') {
    return new WeldlineError('kernel.missing', message, { cause: error });
  }
  return new WeldlineError('internal.bug', `This is a bug in weldline: ${message}`, {
    cause: error,
  });
}
