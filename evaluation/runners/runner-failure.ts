import { WeldlineError } from '../../engine/errors.ts';

/** What tools/llama-cpp/run-model.ts and tools/python/transformers_runner.py say of such a model. */
const NOT_FINITE = /logits are not finite/;

/**
 * What a runner's program says of a model is about the model, and not about the program: a person has
 * to look at it. Only a model that computes no numbers is a result.
 */
export function toRunnerFailure(error: unknown): unknown {
  if (!(error instanceof WeldlineError) || error.code !== 'tool.failed') return error;
  const code = NOT_FINITE.test(error.message) ? 'evaluate.not-finite' : 'evaluate.runner-failed';
  return new WeldlineError(code, error.message, { cause: error });
}
