import type { z } from 'zod';

/** More than this many problems of one file are no help. */
const PROBLEMS_MAX = 3;

/** A key from outside may be of any length. */
const PROBLEM_LENGTH_MAX = 120;

/** What a schema finds wrong with a file, in one line for an error. */
export function problemsOf(error: z.ZodError): string {
  const problems = error.issues.slice(0, PROBLEMS_MAX).map(({ path, message }) => {
    const problem = `${path.join('.') || 'file'}: ${message}`;
    return problem.length > PROBLEM_LENGTH_MAX
      ? `${problem.slice(0, PROBLEM_LENGTH_MAX)}…`
      : problem;
  });
  const more = error.issues.length - problems.length;
  return problems.join('; ') + (more > 0 ? `; and ${more} more` : '');
}
