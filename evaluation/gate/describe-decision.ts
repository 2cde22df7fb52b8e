import type {
  ArtefactDecision,
  GateDecision,
  GateSignal,
  SuiteDecision,
} from '../gate-decision.ts';
import { figure, percent, percentWithInterval } from './describe-figures.ts';

/** The gate's decision in sentences, for a terminal, a log or a list in a document. */
export function describeDecision({ artefacts }: GateDecision): readonly string[] {
  const warnings = describeWarnings(artefacts).map((line) => `warning, ${line}`);
  return [...artefacts.flatMap(describeArtefact), ...warnings];
}

/** One line of what became of it, and one for each reason. */
export function describeArtefact({ candidate, passed, failures }: ArtefactDecision): string[] {
  if (passed) return [`${candidate} passed`];
  return [`${candidate} failed`, ...failures.map((failure) => `  ${describeSignal(failure)}`)];
}

/** `score-drop (suite support): 8 of 20 right …`. */
export function describeSignal({ signal, suite, message }: GateSignal): string {
  return `${signal}${suite === undefined ? '' : ` (suite ${suite})`}: ${message}`;
}

/** What one suite found of one artefact, and what it could have found. */
export function describeSuite(decision: SuiteDecision): string {
  const { suite, reference, prompts, score, referenceScore, baseScore, drop, kl } = decision;
  const figures = [
    ...(score === undefined ? [] : [`${percentWithInterval(score)} of ${prompts} prompts right`]),
    ...(referenceScore === undefined ? [] : [`${reference} ${percent(referenceScore.value)}`]),
    ...(baseScore === undefined ? [] : [`base ${percent(baseScore.value)}`]),
    ...(drop === undefined ? [] : [describeDetection(decision)]),
    ...(kl === undefined ? [] : [`mean KL divergence ${figure(kl)} nats per token`]),
  ];
  return `${suite}: ${figures.join('; ') || 'nothing to score'}`;
}

function describeDetection({ drop, smallestDropSeen }: SuiteDecision): string {
  const found = drop === undefined ? '' : `drop ${percentWithInterval(drop)}`;
  return smallestDropSeen === undefined
    ? `${found}, in a suite too small to show any`
    : `${found}, in a suite that shows drops of ${percent(smallestDropSeen)} and more`;
}

/** Each warning once, with those it is about: what is wrong with a suite is said of every artefact. */
export function describeWarnings(artefacts: readonly ArtefactDecision[]): string[] {
  const about = new Map<string, string[]>();
  for (const { candidate, warnings } of artefacts) {
    for (const warning of warnings) {
      const text = describeSignal(warning);
      about.set(text, [...(about.get(text) ?? []), candidate]);
    }
  }
  return [...about].map(([text, candidates]) => `${candidates.join(', ')}: ${text}`);
}
