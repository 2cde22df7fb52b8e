/** Text that is markup already: made by `html` only, so whatever came from outside is escaped in it. */
export class Markup {
  readonly #text: string;

  private constructor(text: string) {
    this.#text = text;
  }

  static of(strings: TemplateStringsArray, values: readonly Content[]): Markup {
    const parts = strings.map((part, index) =>
      index === 0 ? part : `${render(values[index - 1])}${part}`,
    );
    return new Markup(parts.join(''));
  }

  toString(): string {
    return this.#text;
  }
}

export type Content = Markup | string | number | undefined | readonly Content[];

/**
 * A piece of HTML or SVG. Everything put into it is escaped, unless it is a piece itself; attribute
 * values stand in double quotes. Numbers are coordinates and counts: two decimals at most.
 */
export function html(strings: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return Markup.of(strings, values);
}

function render(content: Content): string {
  if (content === undefined) return '';
  if (typeof content === 'string') return escapeText(content);
  if (typeof content === 'number') return `${Math.round(100 * content) / 100}`;
  if (content instanceof Markup) return content.toString();
  return content.map(render).join('');
}

const ESCAPED: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/**
 * Marks that turn the direction of the text after them, and characters that HTML does not have:
 * shown by their number, so that nothing can hide in a name or an answer.
 */
const SHOWN_BY_NUMBER =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not get through
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufffe\uffff]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

/** Text for an element or a quoted attribute. */
function escapeText(text: string): string {
  return text
    .replace(/\r\n/g, '\n')
    .replace(SHOWN_BY_NUMBER, numbered)
    .replace(/[&<>"']/g, (character) => ESCAPED[character] ?? character);
}

function numbered(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return `\u2039U+${code.toString(16).toUpperCase().padStart(4, '0')}\u203a`;
}

/** Text cut to a length in characters, with a mark where something is missing. */
export function cut(text: string, charactersMax: number): string {
  const characters = [...text];
  if (characters.length <= charactersMax) return text;
  return `${characters.slice(0, charactersMax - 1).join('')}…`;
}
