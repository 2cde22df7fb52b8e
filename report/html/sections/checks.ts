import type { ReportFacts } from '../../report-facts.ts';
import { candidateName } from '../../wording.ts';
import { html, type Markup } from '../markup.ts';
import { outside, table } from '../table.ts';

/** What was looked at before anybody has to trust it. */
export function checksSection({ release, conversions }: ReportFacts): Markup {
  const { filesChecked, rowsRecomputed, worstRounding } = release.verification;
  const checks = [
    ...[
      `${filesChecked} files were read back and are equal to their digests.`,
      `${rowsRecomputed} rows of merged tensors were worked out again in float64; the farthest value is ${worstRounding} roundings from the exact one.`,
      'Every merged value is finite.',
    ].map((text) => ({ of: candidateName('merged'), text })),
    ...conversions.flatMap(({ manifest }) =>
      manifest.checks.map((text) => ({ of: manifest.id, text })),
    ),
  ];
  return html`<section aria-labelledby="checks">
<h2 id="checks">Checks that were made</h2>
${table(
  'Checks that were made',
  [{ label: 'artefact' }, { label: 'check', kind: 'text' }],
  checks.map(({ of, text }) => [outside(of), outside(text)]),
)}</section>
`;
}
