import type { ReportFacts } from '../../report-facts.ts';
import { html, type Markup } from '../markup.ts';
import { timelineFigure } from '../pictures/timeline.ts';

/** How long the stages of the release took. */
export function timesSection({ stages }: ReportFacts): Markup | undefined {
  if (stages.length === 0) return undefined;
  return html`<section aria-labelledby="times">
<h2 id="times">Times</h2>
${timelineFigure(stages)}</section>
`;
}
