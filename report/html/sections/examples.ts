import type { Change, ChangedAnswer, ChangedAnswers } from '../../changed-answers.ts';
import { counted } from '../../figures.ts';
import type { ReportFacts } from '../../report-facts.ts';
import { candidateName } from '../../wording.ts';
import { html, type Markup } from '../markup.ts';
import { outside, table } from '../table.ts';

const CHANGE_WORDS: Readonly<Record<Change, string>> = {
  lost: '✕ was right, is wrong',
  gained: '✓ was wrong, is right',
  reworded: '~ other words, judged the same',
};

/** Answers that became others, a few of each artefact. */
export function examplesSection({ evaluation }: ReportFacts): Markup | undefined {
  const changes = evaluation?.changes ?? [];
  if (changes.length === 0) return undefined;
  const changed = changes.filter(({ lost, gained, reworded }) => lost + gained + reworded > 0);
  const others = changed.length === 0 ? 'All' : 'All other';
  return html`<section aria-labelledby="examples">
<h2 id="examples">Answers that changed</h2>
<p>${others} answers are, word for word, those of the reference.</p>
${changed.length === 0 ? undefined : summary(changed)}
${changed.filter(({ examples }) => examples.length > 0).map(examplesOf)}</section>
`;
}

function summary(changes: readonly ChangedAnswers[]): Markup {
  return table(
    'Changed answers',
    [
      { label: 'artefact' },
      { label: 'suite' },
      { label: 'beside' },
      { label: 'lost', kind: 'number' },
      { label: 'gained', kind: 'number' },
      { label: 'reworded', kind: 'number' },
      { label: 'same', kind: 'number' },
    ],
    changes.map(({ candidate, suite, reference, lost, gained, reworded, same }) => [
      ...[outside(candidateName(candidate)), outside(suite), outside(candidateName(reference))],
      ...[lost, gained, reworded, same],
    ]),
  );
}

function examplesOf({ candidate, suite, examples, ...counts }: ChangedAnswers): Markup {
  const total = counts.lost + counts.gained + counts.reworded;
  const of = examples.length < total ? ` of ${total}` : '';
  return html`<details>
<summary>${outside(candidateName(candidate))} on ${outside(suite)}: ${examples.length}${of} ${examples.length === 1 && of === '' ? 'answer' : 'answers'}</summary>
${table(
  `Changed answers of ${candidateName(candidate)} on ${suite}`,
  [
    { label: 'prompt', kind: 'text' },
    { label: 'change' },
    { label: 'expected', kind: 'text' },
    { label: 'before', kind: 'text' },
    { label: 'after', kind: 'text' },
  ],
  examples.map((example) => [
    promptOf(example),
    CHANGE_WORDS[example.change],
    example.expected === undefined ? '–' : spoken(example.expected.join('\n')),
    spoken(example.before),
    spoken(example.after),
  ]),
)}</details>
`;
}

function promptOf({ index, prompt }: ChangedAnswer): Markup {
  return prompt === undefined ? html`prompt ${index + 1}` : spoken(prompt);
}

/** What a model saw or said, with its own line breaks and direction. */
function spoken(text: string): Markup {
  if (text.trim() === '') return html`<i>${counted([...text].length, 'blank')}</i>`;
  return html`<span class="spoken" dir="auto">${text}</span>`;
}
