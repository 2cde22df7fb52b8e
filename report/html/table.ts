import { type Content, html, type Markup } from './markup.ts';

export interface Column {
  readonly label: string;
  /** Numbers stand at the right and are not broken; `text` may be long and is broken anywhere. */
  readonly kind?: 'name' | 'number' | 'text';
}

/**
 * A table in a box of its own, which scrolls where the page is too narrow for it. The first cell
 * of a row is its header.
 *
 * @param label what it is called for people who do not see it
 */
export function table(
  label: string,
  columns: readonly Column[],
  rows: readonly (readonly Content[])[],
): Markup {
  const head = columns.map(
    ({ label: name, kind }) => html`<th scope="col" class="${kind ?? 'name'}">${name}</th>`,
  );
  const body = rows.map((row) => {
    const cells = row.map((content, index) => {
      const kind = columns[index]?.kind ?? 'name';
      return index === 0
        ? html`<th scope="row" class="${kind}">${content}</th>`
        : html`<td class="${kind}">${content}</td>`;
    });
    return html`<tr>${cells}</tr>\n`;
  });
  return scrolling(
    label,
    html`<table>
<caption class="unseen">${label}</caption>
<thead><tr>${head}</tr></thead>
<tbody>
${body}</tbody>
</table>`,
  );
}

/** What may be wider than the page: it scrolls by itself, by keyboard too. */
export function scrolling(label: string, content: Content): Markup {
  return html`<div class="scroll" role="group" aria-label="${label}" tabindex="0">
${content}
</div>
`;
}

/** A name or a text from outside, which may run from right to left. */
export function outside(text: string): Markup {
  return html`<bdi>${text}</bdi>`;
}

export function code(text: string): Markup {
  return html`<code><bdi>${text}</bdi></code>`;
}
