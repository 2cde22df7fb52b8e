import type { GateSignal, SuiteDecision } from '../gate-decision.ts';
import type { SuiteResult } from '../results.ts';
import { bootstrapDrop } from './bootstrap-drop.ts';
import { figure, percent, percentWithInterval } from './describe-figures.ts';
import { PROMPTS_MAX, promptsToSee, smallestDropSeen } from './detectable-drop.ts';
import { pairOutcomes } from './paired-outcomes.ts';
import { referenceOf, type SuiteEvidence } from './suite-evidence.ts';
import type { Verdict } from './verdict.ts';
import { wilsonInterval } from './wilson-interval.ts';

type Scores = Pick<
  SuiteDecision,
  'score' | 'referenceScore' | 'baseScore' | 'drop' | 'smallestDropSeen'
>;

/** Right answers beside the reference's and the base's. Nothing for a suite of text only. */
export function judgeScores(evidence: SuiteEvidence): Verdict & { readonly scores: Scores } {
  const { suite, own, reference, base, outcomes } = evidence;
  if (outcomes === undefined) return { failures: [], warnings: [], scores: {} };
  const drop = bootstrapDrop(outcomes);
  const score = scoreOf(own);
  const noise = {
    dropMax: suite.dropMax,
    // What went both ways went by chance; more in one direction may be a difference.
    gainedShare: Math.min(outcomes.lost, outcomes.gained) / outcomes.prompts,
    rightShare: scoreOf(reference).value,
  };
  const smallest = smallestDropSeen(outcomes.prompts, noise);
  const scores: Scores = {
    score,
    referenceScore: scoreOf(reference),
    ...(base === undefined ? {} : { baseScore: scoreOf(base) }),
    drop,
    ...(smallest === undefined ? {} : { smallestDropSeen: smallest }),
  };
  const failures: GateSignal[] = [];
  const warnings: GateSignal[] = [];
  const found = `${counted(own)} and ${counted(reference)} of ${referenceOf(suite)}`;
  if (drop.low > suite.dropMax) {
    const message =
      `${found}: a drop of ${percentWithInterval(drop)}, ` +
      `where max_drop allows ${percent(suite.dropMax)}`;
    failures.push({ signal: 'score-drop', suite: suite.id, message });
  } else if (drop.value > suite.dropMax) {
    const message =
      `${found}: a drop of ${percentWithInterval(drop)}, which may be chance. ` +
      `${sizeOfSuite(smallest)}; ${promptsNeeded(promptsToSee(drop.value, noise))}`;
    warnings.push({ signal: 'suite-too-small', suite: suite.id, message });
  } else if (smallest === undefined) {
    const message =
      `${counted(reference)} of ${referenceOf(suite)}: not even the loss of all of them would ` +
      'be told from chance. Write more prompts that the adapter answers';
    warnings.push({ signal: 'suite-too-small', suite: suite.id, message });
  }
  if (suite.scoreMin !== undefined && score.value < suite.scoreMin) {
    const message = `${counted(own)}, ${percent(score.value)}, below min_score ${figure(suite.scoreMin)}`;
    failures.push({ signal: 'score-below-minimum', suite: suite.id, message });
  }
  const fineTune = judgeFineTune(evidence, drop.low > 0);
  return {
    failures: [...failures, ...fineTune.failures],
    warnings: [...warnings, ...fineTune.warnings],
    scores,
  };
}

/** Whether what the fine-tune taught is there, and whether there was anything to lose. */
function judgeFineTune(evidence: SuiteEvidence, isWorseThanReference: boolean): Verdict {
  const { suite, own, reference, base } = evidence;
  const signalOf = (message: string): GateSignal => ({
    signal: 'fine-tune-absent',
    suite: suite.id,
    message,
  });
  const ofReference = base && pairOutcomes(reference.answers, base.answers);
  const ofOwn = base && pairOutcomes(own.answers, base.answers);
  if (base === undefined || ofReference === undefined || ofOwn === undefined) {
    const message =
      'the base alone has no answers to the same prompts, so nothing shows that the fine-tune is there';
    return { failures: [], warnings: [{ signal: 'not-evaluated', suite: suite.id, message }] };
  }
  if (bootstrapDrop(ofReference).low <= 0) {
    const message =
      `${counted(reference)} of ${referenceOf(suite)} and ${counted(base)} of the base alone: this ` +
      'suite does not show what the adapter taught. Is it the right suite, and the right adapter?';
    return { failures: [], warnings: [signalOf(message)] };
  }
  if (!isWorseThanReference || bootstrapDrop(ofOwn).low > 0) return { failures: [], warnings: [] };
  const message =
    `${counted(own)}, ${counted(base)} of the base alone and ${counted(reference)} of ` +
    `${referenceOf(suite)}: it cannot be told from the base, so what the adapter taught is lost`;
  return { failures: [signalOf(message)], warnings: [] };
}

function scoreOf({ answers }: SuiteResult) {
  return wilsonInterval(answers.filter(({ correct }) => correct).length, answers.length);
}

function counted({ answers }: SuiteResult): string {
  return `${answers.filter(({ correct }) => correct).length} of ${answers.length} right`;
}

function sizeOfSuite(smallest: number | undefined): string {
  return smallest === undefined
    ? 'This suite could not have shown any drop'
    : `This suite shows drops of ${percent(smallest)} and more`;
}

function promptsNeeded(prompts: number | undefined): string {
  return prompts === undefined
    ? `to be sure of this one more than ${PROMPTS_MAX} prompts would be needed`
    : `to be sure of this one it should have about ${rounded(prompts)} prompts`;
}

/** Two digits: it is a forecast. */
function rounded(count: number): number {
  return Number(count.toPrecision(2));
}
