import type {
  ArtefactDecision,
  GateSignal,
  SuiteDecision,
} from '../../../evaluation/gate-decision.ts';
import { counted, formatBytes, formatPercent, formatSmall } from '../../figures.ts';
import type { ReportFacts } from '../../report-facts.ts';
import {
  type ArtefactVerdict,
  releaseVerdict,
  VERDICT_WORDS,
  type Verdict,
} from '../../verdict.ts';
import { candidateName, signalWords } from '../../wording.ts';
import { html, type Markup } from '../markup.ts';
import { outside } from '../table.ts';

/** Beside the words, for those who look over a page. */
const MARKS: Readonly<Record<Verdict | 'mixed', string>> = {
  ship: '✓',
  overridden: '!',
  undecided: '?',
  hold: '✕',
  mixed: '±',
};

/** Whether to ship, of the release and of each artefact, with the reasons. */
export function verdictSection(facts: ReportFacts): Markup {
  const { verdict, headline, sentences, artefacts } = releaseVerdict(facts);
  return html`<section aria-labelledby="verdict">
<h2 id="verdict" class="verdict ${verdict}"><span class="mark" aria-hidden="true">${MARKS[verdict]}</span> ${headline}</h2>
${sentences.map(
  ({ text, command }) =>
    html`<p class="lead">${outside(text)}${command && html` <code class="command">${command}</code>`}</p>\n`,
)}
<ul class="cards">
${bySeriousness(artefacts).map((artefact) => card(artefact, facts))}</ul>
</section>
`;
}

/** What needs a decision comes first. */
function bySeriousness(artefacts: readonly ArtefactVerdict[]): readonly ArtefactVerdict[] {
  const order: readonly Verdict[] = ['hold', 'undecided', 'overridden', 'ship'];
  return artefacts.toSorted(
    (one, other) => order.indexOf(one.verdict) - order.indexOf(other.verdict),
  );
}

function card({ candidate, verdict, decision }: ArtefactVerdict, facts: ReportFacts): Markup {
  const { failures = [], warnings = [] } = decision ?? {};
  const size = sizeOf(candidate, facts);
  return html`<li class="card ${verdict}">
<h3>${outside(candidateName(candidate))}</h3>
<p class="judged ${verdict}"><span class="mark" aria-hidden="true">${MARKS[verdict]}</span> ${VERDICT_WORDS[verdict]}</p>
<ul class="figures">${[size, ...headFigures(decision)]
    .filter((line) => line !== undefined)
    .map((line) => html`<li>${outside(line)}</li>`)}</ul>
${failureList(failures)}${warningLine(warnings)}</li>
`;
}

function sizeOf(candidate: string, { release, conversions }: ReportFacts): string | undefined {
  const made = conversions.find(({ manifest }) => manifest.id === candidate)?.manifest;
  const files = candidate === 'merged' ? release.files : made?.files;
  if (files === undefined) return undefined;
  const size = formatBytes(files.reduce((sum, file) => sum + file.size, 0));
  if (made?.bitsPerWeight === undefined) return size;
  return `${size}, ${made.bitsPerWeight.toFixed(2)} bits per weight`;
}

/** What the artefact scores beside its reference, where one suite or the worst of several says it. */
function headFigures(decision: ArtefactDecision | undefined): string[] {
  const suites = decision?.suites ?? [];
  const dropOf = (suite: (typeof suites)[number]): number => suite.drop?.value ?? 0;
  const scored = suites.filter(({ score }) => score !== undefined);
  const [worst] = scored.toSorted((one, other) => dropOf(other) - dropOf(one));
  const kls = suites.map(({ kl }) => kl).filter((kl) => kl !== undefined);
  const of = scored.length > 1 ? `, worst of ${scored.length} suites` : '';
  return [
    ...(worst === undefined ? [] : [`${scoreOf(worst)}${of}`]),
    ...(kls.length === 0 ? [] : [`KL ${formatSmall(Math.max(...kls))} nats per token`]),
  ];
}

function scoreOf({ suite, score, referenceScore }: SuiteDecision): string {
  const reference =
    referenceScore === undefined ? '' : ` (reference ${formatPercent(referenceScore.value)})`;
  return `scores ${formatPercent(score?.value ?? 0)} on ${suite}${reference}`;
}

function failureList(failures: readonly GateSignal[]): Markup | undefined {
  if (failures.length === 0) return undefined;
  const items = failures.map((failure) => {
    const { suite, message, signal } = failure;
    const where = suite === undefined ? undefined : html` on suite ${outside(suite)}`;
    return html`<li><b>Failed: ${signalWords(failure)}</b>${where} <code class="name">${signal}</code><br>${outside(message)}</li>\n`;
  });
  return html`<ul class="signals failure">
${items}</ul>
`;
}

/** In short: the section of warnings says each once, in whole sentences. */
function warningLine(warnings: readonly GateSignal[]): Markup | undefined {
  if (warnings.length === 0) return undefined;
  const words = [...new Set(warnings.map(signalWords))].join('; ');
  return html`<p class="figures"><a href="#warnings">${counted(warnings.length, 'warning')}</a>: ${words}</p>
`;
}
