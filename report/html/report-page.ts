import { createHash } from 'node:crypto';
import type { ReportFacts } from '../report-facts.ts';
import { releaseVerdict } from '../verdict.ts';
import { cut, html, type Markup } from './markup.ts';
import { artefactsSection } from './sections/artefacts.ts';
import { checksSection } from './sections/checks.ts';
import { conflictsSection } from './sections/conflicts.ts';
import { distancesSection } from './sections/distances.ts';
import { examplesSection } from './sections/examples.ts';
import { inputsSection } from './sections/inputs.ts';
import { layerErrorsSection, layersSection } from './sections/layers.ts';
import { scoresSection } from './sections/scores.ts';
import { timesSection } from './sections/times.ts';
import { toolsSection } from './sections/tools.ts';
import { verdictSection } from './sections/verdict.ts';
import { warningsSection } from './sections/warnings.ts';
import { STYLE } from './style.ts';
import { outside } from './table.ts';

type Section = readonly [
  id: string,
  name: string,
  make: (facts: ReportFacts) => Markup | undefined,
];

/** In the order in which a person who decides asks: the verdict, why, and what it rests on. */
const SECTIONS: readonly Section[] = [
  ['verdict', 'Verdict', verdictSection],
  ['warnings', 'Warnings', warningsSection],
  ['scores', 'Scores', scoresSection],
  ['distances', 'Distance', distancesSection],
  ['examples', 'Changed answers', examplesSection],
  ['layers', 'Layers', layersSection],
  ['conflicts', 'Adapters', conflictsSection],
  ['errors', 'Quantization error', layerErrorsSection],
  ['artefacts', 'Artefacts', artefactsSection],
  ['times', 'Times', timesSection],
  ['inputs', 'Inputs', inputsSection],
  ['checks', 'Checks', checksSection],
  ['tools', 'Tools', toolsSection],
];

/**
 * The report of a release for a person who decides whether it ships: one HTML page that loads
 * nothing and runs nothing. The same facts give the same bytes.
 */
export function reportPage(facts: ReportFacts): string {
  const { name, version, artefact } = facts.release;
  const { headline } = releaseVerdict(facts);
  const sections = SECTIONS.flatMap(([id, label, make]) => {
    const content = make(facts);
    return content === undefined ? [] : [{ id, label, content }];
  });
  const links = sections.map(({ id, label }) => html`<li><a href="#${id}">${label}</a></li>\n`);
  const page = html`<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy()}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${headline}: ${cut(name, 60)} ${cut(version, 40)}</title>
`;
  const body = html`</head>
<body>
<a class="skip" href="#content">Skip to the verdict</a>
<header>
<h1>Release report: ${outside(name)} ${outside(version)}</h1>
<p class="about">${outside(artefact)} · run started ${outside(facts.release.run.startedAt)}</p>
</header>
<main id="content">
${sections.slice(0, 1).map(({ content }) => content)}
<nav aria-label="Sections"><ul>
${links}</ul></nav>
${sections.slice(1).map(({ content }) => content)}
</main>
<footer><p>Made by weldline ${facts.release.engine.version} from the facts of the release; the same facts give this page again, byte for byte.</p></footer>
</body>
</html>
`;
  // The style sheet is ours, and its quotes must not be escaped.
  return `<!doctype html>\n${page}<style>${STYLE}</style>\n${body}`;
}

/** Nothing is loaded and nothing runs, whatever got into the page: only this style sheet applies. */
function contentPolicy(): string {
  const digest = createHash('sha256').update(STYLE).digest('base64');
  return `default-src 'none'; style-src 'sha256-${digest}'; base-uri 'none'; form-action 'none'`;
}
