import vm from 'node:vm';

/** Thrown in place of the result of a function that took too long. */
export class TimeLimitError extends Error {}

/** Made once: a context for each call takes longer than most templates and patterns. */
const CONTEXT = vm.createContext({ work: undefined as unknown });
const CALL = new vm.Script('work()');

/**
 * Runs a synchronous function that may take for ever: a pattern that backtracks, a template that
 * loops. V8 interrupts it wherever it is, also inside a regular expression.
 *
 * This is no sandbox: what the function can reach, it can reach. It blocks the thread, so the limit
 * has to be far below the interval of heartbeats.
 *
 * @throws TimeLimitError after `limitMs`
 */
export function withTimeLimit<T>(limitMs: number, work: () => T): T {
  try {
    CONTEXT['work'] = work;
    return CALL.runInContext(CONTEXT, { timeout: limitMs }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new TimeLimitError(`took more than ${limitMs} ms`, { cause: error });
  } finally {
    CONTEXT['work'] = undefined;
  }
}
