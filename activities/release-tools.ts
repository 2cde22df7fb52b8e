import { childVariables } from '../config/environment.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import type { ConversionTools } from '../conversion/convert-options.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { CandidateStep } from '../evaluation/candidate.ts';
import { findLlamaCpp } from '../tools/find-llama-cpp.ts';
import { findPythonTools } from '../tools/find-python-tools.ts';
import type { Dependencies } from './dependencies.ts';

/** Which programs some steps need; names of what `weldline tools install` takes. */
export interface Needs {
  readonly llamaCpp: boolean;
  readonly python: boolean;
  readonly install: string;
}

/** A conversion of a checkpoint runs in Python; quantizing a GGUF does not. */
export function needsOfConversion(step: ConversionStep): Needs {
  switch (step.kind) {
    case 'gguf':
      return { llamaCpp: true, python: step.after === undefined, install: 'gguf' };
    case 'gguf-adapter':
      return { llamaCpp: true, python: true, install: 'gguf' };
    default:
      return { llamaCpp: false, python: true, install: 'awq' };
  }
}

export function needsOfCandidate({ runner }: CandidateStep): Needs {
  return {
    llamaCpp: runner === 'llama.cpp',
    python: runner === 'transformers',
    install: 'eval',
  };
}

/**
 * The programs that steps need, on this machine.
 * @throws WeldlineError `tool.not-found` that says which are missing and how to get them
 */
export async function findTools(
  { tools: environment }: Pick<Dependencies, 'tools'>,
  needs: readonly Needs[],
  signal: AbortSignal,
): Promise<ConversionTools> {
  const variables = childVariables();
  const passedOver: string[] = [];
  const onProgress = (line: string): void => void passedOver.push(`\n  ${line}`);
  const options = { environment, variables, signal, onProgress };
  const needsLlamaCpp = needs.some(({ llamaCpp }) => llamaCpp);
  const needsPython = needs.some(({ python }) => python);
  const llamaCpp = needsLlamaCpp ? await findLlamaCpp(options) : undefined;
  const python = needsPython ? await findPythonTools(options) : undefined;
  const missing = [
    ...(needsLlamaCpp && llamaCpp === undefined ? ['llama.cpp'] : []),
    ...(needsPython && python === undefined ? ['its Python tools (torch, transformers)'] : []),
  ];
  if (missing.length > 0) {
    const lacking = needs.filter(
      (need) => (need.llamaCpp && !llamaCpp) || (need.python && !python),
    );
    const names = [...new Set(lacking.map(({ install }) => install))].join(' ');
    throw new WeldlineError(
      'tool.not-found',
      `This recipe needs ${missing.join(' and ')}, which this machine does not have. ` +
        `Run: weldline tools install ${names}${passedOver.join('')}`,
    );
  }
  const { stallTimeoutMs } = environment;
  return { ...(llamaCpp && { llamaCpp }), ...(python && { python }), variables, stallTimeoutMs };
}
