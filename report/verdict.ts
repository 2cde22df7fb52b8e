import type { ArtefactDecision } from '../evaluation/gate-decision.ts';
import { counted } from './figures.ts';
import type { ReportFacts } from './report-facts.ts';

/** What the report advises a person to do with an artefact. */
export type Verdict = 'ship' | 'overridden' | 'undecided' | 'hold';

export interface ArtefactVerdict {
  /** `merged`, or the id of a conversion. */
  readonly candidate: string;
  readonly verdict: Verdict;
  /** What the gate found; absent where it was not asked. */
  readonly decision?: ArtefactDecision;
}

export interface ReleaseVerdict {
  /** The one that all artefacts share; `mixed` where they differ. */
  readonly verdict: Verdict | 'mixed';
  readonly headline: string;
  /** What is next, and why, in whole sentences. */
  readonly sentences: readonly Sentence[];
  readonly artefacts: readonly ArtefactVerdict[];
}

export interface Sentence {
  readonly text: string;
  /** What a person may type next. */
  readonly command?: string;
}

/** In words: no verdict is told by a colour or a mark alone. */
export const VERDICT_WORDS: Readonly<Record<Verdict, string>> = {
  ship: 'Ship',
  overridden: 'Ships by override',
  undecided: 'A person must decide',
  hold: 'Do not ship',
};

/** Judges what a release made by what its gate decided and what a person said. */
export function releaseVerdict(facts: ReportFacts): ReleaseVerdict {
  const artefacts = artefactsOf(facts);
  const verdicts = new Set(artefacts.map(({ verdict }) => verdict));
  const [only] = verdicts;
  const verdict = verdicts.size === 1 && only !== undefined ? only : 'mixed';
  return {
    verdict,
    headline: verdict === 'mixed' ? mixedHeadline(artefacts) : VERDICT_WORDS[verdict],
    sentences: [
      ...evidence(facts, artefacts).map((text) => ({ text })),
      ...nextSteps(facts, artefacts),
    ],
    artefacts,
  };
}

function artefactsOf({ evaluation, conversions, approval }: ReportFacts): ArtefactVerdict[] {
  const made = [
    'merged',
    ...conversions.filter(({ isWanted }) => isWanted).map(({ manifest }) => manifest.id),
  ];
  const decisions = evaluation?.gate.artefacts ?? [];
  const judged = decisions.map(({ candidate }) => candidate);
  const all = [...judged, ...made.filter((candidate) => !judged.includes(candidate))];
  return all.map((candidate) => {
    const decision = decisions.find((each) => each.candidate === candidate);
    if (decision === undefined) return { candidate, verdict: 'undecided' };
    return { candidate, verdict: verdictOf(decision, approval?.override !== undefined), decision };
  });
}

function verdictOf({ passed, failures }: ArtefactDecision, isOverridden: boolean): Verdict {
  if (passed) return 'ship';
  if (isOverridden) return 'overridden';
  const isUnknown = failures.every(({ signal }) => signal === 'not-evaluated');
  return isUnknown ? 'undecided' : 'hold';
}

const count = (artefacts: readonly ArtefactVerdict[], verdict: Verdict): number =>
  artefacts.filter((each) => each.verdict === verdict).length;

function mixedHeadline(artefacts: readonly ArtefactVerdict[]): string {
  const shipped = count(artefacts, 'ship') + count(artefacts, 'overridden');
  const parts = [
    `Ship ${shipped} of ${counted(artefacts.length, 'artefact')}`,
    ...(count(artefacts, 'overridden') > 0
      ? [`${count(artefacts, 'overridden')} by override`]
      : []),
    ...(count(artefacts, 'hold') > 0 ? [`do not ship ${count(artefacts, 'hold')}`] : []),
    ...(count(artefacts, 'undecided') > 0
      ? [`a person must decide on ${count(artefacts, 'undecided')}`]
      : []),
  ];
  return parts.join(', ');
}

function evidence(
  { evaluation }: ReportFacts,
  artefacts: readonly ArtefactVerdict[],
): readonly string[] {
  if (evaluation === undefined) {
    return [
      'Nothing was evaluated: the recipe names no suites, so nothing shows whether the merged model does what the adapter on its base does.',
    ];
  }
  const judged = artefacts.filter(({ decision }) => decision !== undefined);
  const passed = judged.filter(({ decision }) => decision?.passed === true).length;
  const suites = counted(evaluation.suites.length, 'suite');
  const unjudged = artefacts.length - judged.length;
  return [
    `${passed} of ${counted(judged.length, 'artefact')} passed the gate on ${suites}.`,
    ...(unjudged > 0 ? [`${counted(unjudged, 'artefact')} went past the gate unjudged.`] : []),
  ];
}

function nextSteps(
  { release, approval, approvalRequired, evaluation }: ReportFacts,
  artefacts: readonly ArtefactVerdict[],
): readonly Sentence[] {
  const failed = artefacts.some(({ decision }) => decision?.passed === false);
  if (approval !== undefined) {
    const why = approval.override === undefined ? '' : `, over the gate: “${approval.override}”`;
    return [{ text: `Approved by ${approval.by}${why}.` }];
  }
  // By its name: without one the command takes the release that was started last.
  const approve = `weldline approve ${release.run.workflowId}`;
  const override = {
    text: 'What failed is not published, unless a person overrules the gate:',
    command: `${approve} --override "reason"`,
  };
  const stopped = { text: 'What failed is not published: the recipe stops there.' };
  const asked = { text: 'The recipe asks for a person’s yes:', command: approve };
  return [
    ...(failed ? [evaluation?.onFailure === 'stop' ? stopped : override] : []),
    ...(approvalRequired ? [asked] : []),
  ];
}
