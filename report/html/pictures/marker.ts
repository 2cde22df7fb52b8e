import { html, type Markup } from '../markup.ts';

/** Told apart by form, so that no colour is needed for it. */
export type Form = 'ring' | 'diamond' | 'dot' | 'cross';

/** A mark in a picture. */
export function marker(form: Form, x: number, y: number): Markup {
  switch (form) {
    case 'ring':
      return html`<circle class="ring" cx="${x}" cy="${y}" r="4.5"/>`;
    case 'diamond':
      return html`<path class="diamond" d="M${x} ${y - 6}l6 6-6 6-6-6z"/>`;
    case 'dot':
      return html`<circle class="dot" cx="${x}" cy="${y}" r="5"/>`;
    case 'cross':
      return html`<path class="cross" d="M${x - 5} ${y - 5}l10 10m0-10l-10 10"/>`;
  }
}

const KEY_SIZE = 16;

/** What marks stand for, with the marks themselves. */
export function markerLegend(entries: readonly (readonly [Form, string])[]): Markup {
  const items = entries.map(
    ([form, label]) =>
      html`<li><svg class="key" width="${KEY_SIZE}" height="${KEY_SIZE}" aria-hidden="true">${marker(form, KEY_SIZE / 2, KEY_SIZE / 2)}</svg>${label}</li>\n`,
  );
  return html`<ul class="legend">
${items}</ul>`;
}
