import { type Content, html, type Markup } from '../markup.ts';
import { scrolling } from '../table.ts';

export interface Picture {
  /** Of the page: letters, digits and `-`. */
  readonly id: string;
  readonly title: string;
  /** What can be seen in it, in a sentence or two, for people who do not see it. */
  readonly description: string;
  /** Units of CSS pixels: what it is wide and high at its natural size. */
  readonly width: number;
  readonly height: number;
  readonly content: Content;
  /** Whether it grows with the page; otherwise it keeps its size, and scrolls if need be. */
  readonly isFluid: boolean;
}

/** The width of a picture on the narrowest page, so that its text is not made smaller there. */
export const FLUID_WIDTH = 320;

/** A picture with its name, its legend, and the table of what it shows. */
export function figure(picture: Picture, legend: Content, data: Markup): Markup {
  const { id, title, description, width, height, content, isFluid } = picture;
  const svg = html`<svg class="${isFluid ? 'fluid' : 'fixed'}" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="${id}-title ${id}-description">
<title id="${id}-title">${title}</title>
<desc id="${id}-description">${description}</desc>
${content}
</svg>`;
  return html`<figure id="${id}">
<figcaption>${title}</figcaption>
${isFluid ? svg : scrolling(title, svg)}
${legend}
<details><summary>Table: ${title}</summary>
${data}</details>
</figure>
`;
}
