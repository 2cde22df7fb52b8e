import type { Distributions } from '../../evaluation/runner.ts';

/** Distributions of one text, of tokens 0, 1, 2, … unless others are given. */
export function distributionsOf(
  values: readonly number[],
  vocabulary: number,
  rest: Partial<Distributions> = {},
): Distributions {
  const positions = values.length / vocabulary;
  return {
    index: 0,
    tokens: Int32Array.from({ length: positions }, (_, token) => token),
    from: 0,
    vocabulary,
    values: Float32Array.from(values),
    areLogProbabilities: false,
    ...rest,
  };
}

export async function* streamOf<T>(items: Iterable<T>): AsyncIterable<T> {
  yield* items;
}
