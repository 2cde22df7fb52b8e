import { closestName } from '../config/closest-name.ts';
import type { RecipeEvaluation } from '../config/release-quality.ts';
import type { ConversionStep, GgufStep } from '../conversion/conversion-step.ts';
import { WeldlineError } from '../engine/errors.ts';
import { type CandidateStep, referenceFor } from './candidate.ts';

export interface PlanCandidatesOptions {
  readonly evaluation: RecipeEvaluation;
  readonly steps: readonly ConversionStep[];
  readonly adapterIds: readonly string[];
}

/**
 * Who is asked what, in an order in which each comes after the one that it is compared with: the
 * base, adapters on it, the merged model, and all conversions of it. Adapters as GGUF files are no
 * models and are not among them.
 *
 * @throws WeldlineError `recipe.invalid` where the endpoint's models name what is no candidate, or one
 *   whose perplexity is to be measured, which no endpoint tells
 */
export function planCandidates(options: PlanCandidatesOptions): readonly CandidateStep[] {
  const { evaluation, adapterIds } = options;
  const { suites } = evaluation;
  const all = suites.map(({ id }) => id);
  const asked = suites.filter(({ data }) => data !== undefined).map(({ id }) => id);
  const about = (adapter: string) =>
    suites.filter((suite) => suite.adapter === adapter).map(({ id }) => id);
  const candidates: CandidateStep[] = [
    { id: 'base', kind: 'base', runner: 'transformers', suites: asked },
    ...adapterIds.map(
      (id): CandidateStep => ({
        id: `adapter:${id}`,
        kind: 'adapter',
        runner: 'transformers',
        suites: about(id),
      }),
    ),
    { id: 'merged', kind: 'merged', runner: 'transformers', ...adaptersOf(suites), suites: all },
    ...conversionsOf(options.steps, all),
  ];
  const served = candidates.filter(({ suites: ids }) => ids.length > 0);
  return withReferences(withEndpoint(served, evaluation));
}

/** What the merged model is compared with. */
function adaptersOf(
  suites: RecipeEvaluation['suites'],
): Pick<CandidateStep, 'comparedWith' | 'comparedWithBySuite'> {
  const references = suites.map(({ id, adapter }) => [id, `adapter:${adapter}`] as const);
  const [first] = references;
  return references.every(([, reference]) => reference === first?.[1])
    ? { comparedWith: first![1] }
    : { comparedWithBySuite: Object.fromEntries(references) };
}

function conversionsOf(
  steps: readonly ConversionStep[],
  suites: readonly string[],
): CandidateStep[] {
  const ggufs = steps.filter((step): step is GgufStep => step.kind === 'gguf');
  // The 16-bit files first, since the others are compared with them.
  const sorted = [
    ...ggufs.filter(({ after }) => after === undefined),
    ...ggufs.filter(({ after }) => after !== undefined),
  ];
  return [
    ...sorted.map(
      ({ id, kind, after }): CandidateStep => ({
        id,
        kind,
        runner: 'llama.cpp',
        conversion: id,
        ...(after === undefined ? {} : { comparedWith: after }),
        suites,
      }),
    ),
    ...steps
      .filter(({ kind }) => kind === 'awq' || kind === 'gptq')
      .map(
        ({ id, kind }): CandidateStep => ({
          id,
          kind,
          runner: 'transformers',
          conversion: id,
          comparedWith: 'merged',
          suites,
        }),
      ),
  ];
}

/** Candidates that the endpoint has are asked there. */
function withEndpoint(
  candidates: readonly CandidateStep[],
  { endpoint, suites }: RecipeEvaluation,
): CandidateStep[] {
  const names = Object.keys(endpoint?.models ?? {});
  const ids = candidates.map(({ id }) => id);
  for (const name of names) {
    if (ids.includes(name)) continue;
    const closest = closestName(name, ids);
    throw invalid(
      `evaluate.endpoint.models names "${name}", which is no candidate` +
        `${closest === undefined ? '' : `; did you mean "${closest}"?`}. There is ${ids.join(', ')}`,
    );
  }
  return candidates.map((candidate) => {
    if (!names.includes(candidate.id)) return candidate;
    const text = suites.find(({ id, text }) => text !== undefined && candidate.suites.includes(id));
    if (text === undefined) return { ...candidate, runner: 'endpoint' };
    throw invalid(
      `The perplexity of "${candidate.id}" is to be measured (text of the suite "${text.id}"), which ` +
        'an endpoint cannot tell. Take the candidate out of evaluate.endpoint.models, or the text ' +
        'out of the suite',
    );
  });
}

/**
 * Leaves comparisons to runners that can be compared: probabilities of two programs differ by their
 * arithmetic, and an endpoint tells none.
 */
function withReferences(candidates: readonly CandidateStep[]): CandidateStep[] {
  const runners = new Map(candidates.map(({ id, runner }) => [id, runner]));
  const comparable = candidates.map((candidate): CandidateStep => {
    const { comparedWith, comparedWithBySuite, ...step } = candidate;
    const isComparable = (reference: string) =>
      step.runner !== 'endpoint' && runners.get(reference) === step.runner;
    if (comparedWithBySuite === undefined) {
      return comparedWith !== undefined && isComparable(comparedWith) ? candidate : step;
    }
    const kept = Object.entries(comparedWithBySuite).filter(([, id]) => isComparable(id));
    return { ...step, comparedWithBySuite: Object.fromEntries(kept) };
  });
  return comparable.map((candidate) => {
    const referenceOf = candidate.suites.filter((suite) =>
      comparable.some(
        (other) => other.suites.includes(suite) && referenceFor(other, suite) === candidate.id,
      ),
    );
    return referenceOf.length === 0 ? candidate : { ...candidate, referenceOf };
  });
}

function invalid(problem: string): WeldlineError {
  return new WeldlineError('recipe.invalid', `${problem}.`);
}
