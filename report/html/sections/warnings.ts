import type { GateSignal } from '../../../evaluation/gate-decision.ts';
import type { ReportFacts } from '../../report-facts.ts';
import { candidateName, signalWords } from '../../wording.ts';
import { html, type Markup } from '../markup.ts';
import { outside } from '../table.ts';

/** What people should know, in the words of whoever found it; each warning once. */
export function warningsSection({
  release,
  conversions,
  evaluation,
}: ReportFacts): Markup | undefined {
  const items = [
    ...release.warnings.map((text) => html`<li>${outside(text)}</li>\n`),
    ...conversions.flatMap(({ manifest: { id, warnings } }) =>
      warnings.map((text) => html`<li><b>${outside(id)}:</b> ${outside(text)}</li>\n`),
    ),
    ...gateWarnings(evaluation),
  ];
  if (items.length === 0) return undefined;
  return html`<section aria-labelledby="warnings">
<h2 id="warnings">Warnings</h2>
<ul class="signals warning">
${items}</ul>
</section>
`;
}

interface GateWarning {
  readonly warning: GateSignal;
  readonly artefacts: string[];
}

/** What is wrong with a suite is said of every artefact. */
function gateWarnings(evaluation: ReportFacts['evaluation']): readonly Markup[] {
  const found = new Map<string, GateWarning>();
  for (const { candidate, warnings } of evaluation?.gate.artefacts ?? []) {
    for (const warning of warnings) {
      const key = JSON.stringify([warning.signal, warning.suite, warning.message]);
      const known = found.get(key) ?? { warning, artefacts: [] };
      found.set(key, known);
      known.artefacts.push(candidateName(candidate));
    }
  }
  return [...found.values()].map(({ warning, artefacts }) => {
    const { suite, message, signal } = warning;
    const where = suite === undefined ? undefined : html` on suite ${outside(suite)}`;
    return html`<li><b>${signalWords(warning)}</b>${where} <code class="name">${signal}</code> ${outside(`(${artefacts.join(', ')})`)}<br>${outside(message)}</li>\n`;
  });
}
