import type { GateDecision } from '../evaluation/gate-decision.ts';
import type { SuiteResult } from '../evaluation/results.ts';
import type { Exercise, Suite } from '../evaluation/suite.ts';
import { cut } from './html/markup.ts';

/** A few show what kind of change it is; all of them would bury it. */
const EXAMPLES_PER_SUITE_MAX = 5;
/** Of an artefact over all suites. */
const EXAMPLES_PER_ARTEFACT_MAX = 12;
const TEXT_CHARACTERS_MAX = 600;

/** How the answers of an artefact differ from those of its reference on one suite. */
export interface ChangedAnswers {
  readonly candidate: string;
  readonly reference: string;
  readonly suite: string;
  /** Correct before, wrong now. */
  readonly lost: number;
  /** Wrong before, correct now. */
  readonly gained: number;
  /** Another text, and as correct or as wrong as before. */
  readonly reworded: number;
  readonly same: number;
  /** What was lost first. Texts are cut. */
  readonly examples: readonly ChangedAnswer[];
}

export interface ChangedAnswer {
  /** Place in the suite, from 0. */
  readonly index: number;
  readonly change: Change;
  /** Absent where the suite's prompts are not at hand. */
  readonly prompt?: string;
  /** What would be correct: one of these. */
  readonly expected?: readonly string[];
  readonly before: string;
  readonly after: string;
}

export type Change = 'lost' | 'gained' | 'reworded';

const CHANGES = ['lost', 'gained', 'reworded'] as const satisfies readonly Change[];

type Answer = SuiteResult['answers'][number];

/** Compares the answers of each artefact with those of its reference, in the order of the gate. */
export function changedAnswers(
  gate: GateDecision,
  results: readonly SuiteResult[],
  suites: readonly Suite[],
): readonly ChangedAnswers[] {
  const find = (candidate: string, suite: string): readonly Answer[] | undefined =>
    results.find((each) => each.candidate === candidate && each.suite === suite)?.answers;
  return gate.artefacts.flatMap(({ candidate, suites: decisions }) => {
    let left = EXAMPLES_PER_ARTEFACT_MAX;
    return decisions.flatMap(({ suite, reference }) => {
      const [before, after] = [find(reference, suite), find(candidate, suite)];
      if (before === undefined || after === undefined || after.length === 0) return [];
      const exercises = suites.find(({ id }) => id === suite)?.exercises ?? [];
      const compared = compareAnswers(before, after, exercises);
      const examples = compared.examples.slice(0, Math.min(left, EXAMPLES_PER_SUITE_MAX));
      left -= examples.length;
      return [{ candidate, reference, suite, ...compared, examples }];
    });
  });
}

function compareAnswers(
  before: readonly Answer[],
  after: readonly Answer[],
  exercises: readonly Exercise[],
): Omit<ChangedAnswers, 'candidate' | 'reference' | 'suite'> {
  const earlier = new Map(before.map((answer) => [answer.index, answer]));
  const byIndex = new Map(exercises.map((exercise) => [exercise.index, exercise]));
  const counts = { lost: 0, gained: 0, reworded: 0, same: 0 };
  const examples: ChangedAnswer[] = [];
  for (const answer of after.toSorted((one, other) => one.index - other.index)) {
    const reference = earlier.get(answer.index);
    if (reference === undefined) continue;
    const change = changeOf(reference, answer);
    counts[change]++;
    if (change === 'same') continue;
    const exercise = byIndex.get(answer.index);
    examples.push({
      index: answer.index,
      change,
      ...(exercise && { prompt: shortened(exercise.prompt) }),
      ...(exercise && { expected: [exercise.expected].flat().slice(0, 3).map(shortened) }),
      before: shortened(reference.text),
      after: shortened(answer.text),
    });
  }
  const place = ({ change }: ChangedAnswer): number => CHANGES.indexOf(change);
  return { ...counts, examples: examples.toSorted((one, other) => place(one) - place(other)) };
}

function changeOf(before: Answer, after: Answer): Change | 'same' {
  if (before.correct !== after.correct) return before.correct ? 'lost' : 'gained';
  return before.text === after.text ? 'same' : 'reworded';
}

function shortened(text: string): string {
  return cut(text, TEXT_CHARACTERS_MAX);
}
