import type { RecipeSuite } from '../config/release-quality.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { LlamaCpp } from '../tools/llama-cpp.ts';
import { type CandidateStep, referenceFor } from './candidate.ts';

/**
 * Refuses to measure GGUF files by a llama.cpp of the user's own where that takes probabilities of the
 * whole vocabulary: its server tells none, which would come out after hours, as a refusal of the gate.
 *
 * @throws WeldlineError `tool.not-found`
 */
export function requireDistributions(
  candidates: readonly CandidateStep[],
  suites: readonly RecipeSuite[],
  llamaCpp: LlamaCpp | undefined,
): void {
  if (llamaCpp === undefined) return;
  const { libraries, modules, directory, origin } = llamaCpp;
  if (libraries !== undefined && modules !== undefined) return;
  for (const candidate of candidates.filter(({ runner }) => runner === 'llama.cpp')) {
    for (const { id, text, klMax } of suites) {
      if (!candidate.suites.includes(id)) continue;
      const isCompared = klMax !== undefined && referenceFor(candidate, id) !== undefined;
      const demand = text !== undefined ? 'perplexity of its text' : isCompared ? 'max_kl' : '';
      if (demand === '') continue;
      throw new WeldlineError(
        'tool.not-found',
        `The suite "${id}" asks for the ${demand} of ${candidate.id}, which the llama.cpp in ${directory} ` +
          'cannot tell: its server gives no probabilities. Run `weldline tools install gguf` and ' +
          `${origin === 'path' ? 'take that one off PATH' : 'unset WELDLINE_LLAMA_CPP'}, or leave that ` +
          'out of the suite.',
      );
    }
  }
}
