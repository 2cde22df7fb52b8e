import {
  type Combination,
  type CombinationParameters,
  MAJORITY_SIGNS,
} from '../engine/plan/combination.ts';
import { combinationProblem, type ParameterName } from '../engine/plan/combination-problem.ts';
import { usage } from './usage.ts';

interface ParameterArguments {
  readonly rank?: string;
  readonly density?: string;
  readonly seed?: string;
  readonly majoritySign?: string;
}

const OPTIONS: Readonly<Record<ParameterName | 'method', string>> = {
  method: '--combine',
  rank: '--rank',
  density: '--density',
  seed: '--seed',
  majoritySign: '--majority-sign',
};

/** @throws WeldlineError `cli.usage` for parameters that the method does not take or lacks */
export function parametersOption(
  method: Combination['method'],
  count: number,
  { rank, density, seed, majoritySign }: ParameterArguments,
): CombinationParameters | undefined {
  const densities = density === undefined ? [] : numbersOption(OPTIONS.density, density, '0.2,0.3');
  const parameters = {
    ...(rank === undefined ? {} : { rank: numberOf(rank) }),
    ...(density === undefined
      ? {}
      : { density: densities.length === 1 ? densities[0] : densities }),
    ...(seed === undefined ? {} : { seed: numberOf(seed) }),
    ...(majoritySign === undefined
      ? {}
      : { majoritySign: MAJORITY_SIGNS.find((each) => each === majoritySign) }),
  };
  const problem = combinationProblem(method, parameters, count);
  if (problem !== undefined) {
    throw usage(`${OPTIONS[problem.parameter]}: ${problem.message}.`);
  }
  return Object.keys(parameters).length === 0 ? undefined : parameters;
}

function numberOf(text: string): number {
  return text.trim() === '' ? Number.NaN : Number(text);
}

/** Numbers with commas between them. */
export function numbersOption(name: string, text: string, example: string): number[] {
  const numbers = text.split(',').map(numberOf);
  if (numbers.some(Number.isNaN)) {
    throw usage(`${name} ${text} is not a list of numbers such as ${example}.`);
  }
  return numbers;
}
