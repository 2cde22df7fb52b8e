import { expect } from 'vitest';
import { stringify } from 'yaml';
import { parseRecipe, type Recipe } from '../../config/recipe.ts';
import { WeldlineError } from '../../engine/errors.ts';

/** Recipes that say how good a release has to be, and what is wrong with them. */

export const HEAD = {
  name: 'support',
  version: '1.2.0',
  base: { model: 'hf://org/base' },
  adapters: [{ id: 'a', model: './a' }],
};
/** With two adapters. */
export const TWO = {
  ...HEAD,
  adapters: [...HEAD.adapters, { id: 'b', model: './b' }],
  combination: { method: 'linear' },
};

export function readRecipe(quality: object, head: object = HEAD): Recipe {
  return parseRecipe(stringify({ ...head, ...quality }), '/recipes/r.yaml').recipe;
}

/** All problems of a recipe that ends in these lines, the first of which is line 7. */
export function problemsOf(text: string, head: object = HEAD): string[] {
  const start = stringify(head);
  const above = start.split('\n').length - 1;
  try {
    parseRecipe(start + text, 'r.yaml');
  } catch (error) {
    if (!(error instanceof WeldlineError) || error.code !== 'recipe.invalid') throw error;
    const problems = error.details['problems'] as readonly string[];
    return problems.map((problem) =>
      problem.replace(/^r\.yaml:(\d+)/, (_, line: string) => String(Number(line) - above)),
    );
  }
  throw new Error('the recipe was accepted');
}

/** One problem, at `line:column` of the lines, that begins so. */
export function expectProblem(text: string, problem: string, head?: object): void {
  const problems = problemsOf(text, head);
  expect(problems).toHaveLength(1);
  expect(problems[0]?.slice(0, problem.length)).toBe(problem);
}
