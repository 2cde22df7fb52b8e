import type { RecipeEndpoint } from '../config/release-quality.ts';
import type { Secret } from '../config/secret.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import type { LlamaCpp } from '../tools/llama-cpp.ts';
import type { PythonTools } from '../tools/python-tools.ts';
import type { CandidateStep } from './candidate.ts';
import type { Runner } from './runner.ts';
import { endpointIdentity, startEndpointRunner } from './runners/endpoint-runner.ts';
import { startLlamaCppRunner } from './runners/llama-cpp-runner.ts';
import { startTransformersRunner, transformersIdentity } from './runners/transformers-runner.ts';

/** What candidates are run with. */
export interface EvaluationTools {
  readonly python?: PythonTools | undefined;
  readonly llamaCpp?: LlamaCpp | undefined;
  readonly endpointKey?: Secret | undefined;
  /** The environment of child processes; see `childVariables`. */
  readonly variables: Readonly<Record<string, string>>;
  readonly threads?: number | undefined;
  /** How long a runner may print nothing, where the user says so. */
  readonly stallTimeoutMs?: number | undefined;
}

/** Where a candidate's files are: what its runner needs of these. */
export interface CandidateModel {
  /** Of a checkpoint. */
  readonly directory?: string | undefined;
  /** The first part of one that was split. */
  readonly ggufFile?: string | undefined;
  /** Directory of an adapter that is applied to `directory`, or a GGUF file for `ggufFile`. */
  readonly adapter?: string | undefined;
  /** Directory of the tokenizer, if it is not `directory`: an adapter may bring tokens along. */
  readonly tokenizer?: string | undefined;
  /** Of all these files: equal digests, equal answers. */
  readonly digest: string;
  readonly endpoint?: RecipeEndpoint | undefined;
}

export interface CandidateRunnerOptions {
  readonly step: CandidateStep;
  readonly model: CandidateModel;
  readonly tools: EvaluationTools;
  readonly signal: AbortSignal;
  readonly logFile?: string | undefined;
}

/**
 * `Runner.identity` of the runner that `startCandidateRunner` starts, without starting it.
 * @throws WeldlineError `tool.not-found` if its program is missing
 */
export function candidateRunnerIdentity({
  step,
  model,
  tools,
}: Pick<CandidateRunnerOptions, 'step' | 'model' | 'tools'>): string {
  switch (step.runner) {
    case 'transformers':
      return transformersIdentity(pythonOf(tools));
    case 'llama.cpp': {
      const { version, libraries } = llamaCppOf(tools);
      return `${libraries === undefined ? 'llama-server' : 'llama.cpp'} ${version}`;
    }
    case 'endpoint': {
      const { url, name } = servedModel(step, model);
      return endpointIdentity(url, name);
    }
  }
}

/**
 * Starts the runner of a candidate with its model.
 * @throws WeldlineError `tool.not-found`, `evaluate.runner-failed`, `evaluate.endpoint-failed`
 */
export async function startCandidateRunner(options: CandidateRunnerOptions): Promise<Runner> {
  const { step, model, tools, signal, logFile } = options;
  const { adapter } = model;
  const { variables, threads, stallTimeoutMs } = tools;
  const common = { adapter, variables, threads, stallTimeoutMs, signal, logFile };
  switch (step.runner) {
    case 'transformers': {
      assert(model.directory !== undefined, `the candidate ${step.id} has no checkpoint`);
      const python = pythonOf(tools);
      const { directory, tokenizer } = model;
      return startTransformersRunner({ ...common, model: directory, tokenizer, python });
    }
    case 'llama.cpp': {
      assert(model.ggufFile !== undefined, `the candidate ${step.id} has no GGUF file`);
      const llamaCpp = llamaCppOf(tools);
      return startLlamaCppRunner({ ...common, model: model.ggufFile, llamaCpp });
    }
    case 'endpoint': {
      const { url, name } = servedModel(step, model);
      return startEndpointRunner({ url, model: name, key: tools.endpointKey, signal });
    }
  }
}

function pythonOf({ python }: EvaluationTools): PythonTools {
  if (python !== undefined) return python;
  throw new WeldlineError(
    'tool.not-found',
    'There is no Python with torch, transformers and PEFT to evaluate with. Run `weldline tools ' +
      'install eval`, or set WELDLINE_PYTHON to one.',
  );
}

function llamaCppOf({ llamaCpp }: EvaluationTools): LlamaCpp {
  if (llamaCpp !== undefined) return llamaCpp;
  throw new WeldlineError(
    'tool.not-found',
    'There is no llama.cpp to evaluate GGUF files with. Run `weldline tools install gguf`, or set ' +
      'WELDLINE_LLAMA_CPP to the directory of one.',
  );
}

function servedModel(
  step: CandidateStep,
  { endpoint }: CandidateModel,
): { readonly url: string; readonly name: string } {
  const name = endpoint?.models[step.id];
  assert(endpoint !== undefined && name !== undefined, `the endpoint does not serve ${step.id}`);
  return { url: endpoint.url, name };
}
