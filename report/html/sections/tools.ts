import type { ReportFacts } from '../../report-facts.ts';
import { candidateName } from '../../wording.ts';
import { html, type Markup } from '../markup.ts';
import { outside, table } from '../table.ts';

/** Which programs had a part in it. */
export function toolsSection({ release, conversions, evaluation }: ReportFacts): Markup {
  const uses = new Map<string, Set<string>>();
  const add = (tool: string, use: string): void => {
    const known = uses.get(tool);
    if (known === undefined) uses.set(tool, new Set([use]));
    else known.add(use);
  };
  add(`weldline ${release.engine.version}, format ${release.engine.format}`, 'merging');
  for (const { manifest } of conversions) {
    for (const [name, version] of Object.entries(manifest.tools)) {
      add(`${name} ${version}`, `making ${manifest.id}`);
    }
  }
  for (const { runner, candidate } of evaluation?.results ?? []) {
    add(runner, `running ${candidateName(candidate)}`);
  }
  return html`<section aria-labelledby="tools">
<h2 id="tools">Tools</h2>
${table(
  'Tools',
  [
    { label: 'tool and version', kind: 'text' },
    { label: 'used for', kind: 'text' },
  ],
  [...uses].map(([tool, used]) => [outside(tool), outside([...used].join('; '))]),
)}</section>
`;
}
