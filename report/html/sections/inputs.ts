import type { ReportFacts } from '../../report-facts.ts';
import { html, type Markup } from '../markup.ts';
import { code, outside, table } from '../table.ts';
import { filesOf } from './artefacts.ts';

/** What went in, pinned. */
export function inputsSection({ release }: ReportFacts): Markup {
  const { inputs, recipe, plan, manifestDigest, options, run } = release;
  const facts: readonly (readonly [string, string])[] = [
    ['recipe', `${recipe.name} ${recipe.version}`],
    ['recipe, SHA-256', recipe.digest],
    ['plan, SHA-256', plan],
    ['manifest of the merge, SHA-256', manifestDigest],
    ['run', `${run.workflowId}, ${run.startedAt}`],
    ...Object.entries(options).map(([name, value]) => [name, `${value}`] as const),
  ];
  return html`<section aria-labelledby="inputs">
<h2 id="inputs">Inputs</h2>
${table(
  'Inputs',
  [
    { label: 'input' },
    { label: 'model', kind: 'text' },
    { label: 'commit', kind: 'text' },
    { label: 'training run', kind: 'text' },
  ],
  inputs.map(({ id, model, commit, trainingRun }) => [
    outside(id),
    code(model),
    commit === undefined ? 'a directory, by its digests' : code(commit),
    trainingRun === undefined ? '–' : code(trainingRun),
  ]),
)}${inputs.map(({ id, files }) => filesOf(id, files))}
<h3>Identity and options</h3>
${table(
  'Identity and options',
  [{ label: 'what' }, { label: 'value', kind: 'text' }],
  facts.map(([name, value]) => [outside(name), code(value)]),
)}</section>
`;
}
