import type { ReportFacts } from '../../report-facts.ts';
import { html, type Markup } from '../markup.ts';
import { outside } from '../table.ts';

/** What people should know, in the words of whoever found it. */
export function warningsSection({ release, conversions }: ReportFacts): Markup | undefined {
  const warnings = [
    ...release.warnings.map((text) => ({ of: undefined, text })),
    ...conversions.flatMap(({ manifest }) =>
      manifest.warnings.map((text) => ({ of: manifest.id, text })),
    ),
  ];
  if (warnings.length === 0) return undefined;
  const items = warnings.map(
    ({ of, text }) =>
      html`<li>${of === undefined ? undefined : html`<b>${outside(of)}:</b> `}${outside(text)}</li>\n`,
  );
  return html`<section aria-labelledby="warnings">
<h2 id="warnings">Warnings</h2>
<ul class="signals warning">
${items}</ul>
</section>
`;
}
