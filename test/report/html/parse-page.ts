/** A strict reader of the report's HTML: anything a browser would have to mend is an error. */

export interface Element {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly (Element | string)[];
}

const VOID = new Set(['meta', 'br']);
/** Closed in itself, as SVG allows. */
const SELF_CLOSED = /^(rect|circle|path)$/;
const TOKEN = /<!doctype html>|<(\/?)([a-z][a-z0-9]*)((?:\s+[^<>]*?)?)(\/?)>|[^<]+|</gi;
const ATTRIBUTE = /\s+([a-zA-Z][a-zA-Z:-]*)="([^"<>]*)"/gy;
const REFERENCE = /&(amp|lt|gt|quot|#39);/g;
const CHARACTERS: Readonly<Record<string, string>> = {
  ...{ amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" },
};

/** @throws Error for what is not well-formed */
export function parsePage(text: string): Element {
  if (!text.startsWith('<!doctype html>\n')) throw new Error('there is no doctype');
  const root = { name: '#root', attributes: new Map<string, string>(), children: [] as Node[] };
  const open: Mutable[] = [root];
  let isStyle = false;
  for (const [token, slash, name, attributes, selfClosed] of text.matchAll(TOKEN)) {
    const parent = open.at(-1)!;
    if (isStyle && name !== 'style') {
      parent.children.push(token);
    } else if (name === undefined) {
      if (token === '<') throw new Error('a "<" that begins no tag');
      if (!token.startsWith('<!')) parent.children.push(decode(token));
    } else if (slash === '/') {
      if (parent.name !== name) throw new Error(`</${name}> closes <${parent.name}>`);
      open.pop();
      isStyle = false;
    } else {
      const element = { name, attributes: parseAttributes(attributes ?? ''), children: [] };
      parent.children.push(element);
      const isClosed = selfClosed === '/';
      if (isClosed !== (isClosed && SELF_CLOSED.test(name))) throw new Error(`<${name}/>`);
      if (!isClosed && !VOID.has(name)) open.push(element);
      isStyle = name === 'style';
    }
  }
  if (open.length !== 1) throw new Error(`<${open.at(-1)?.name}> is not closed`);
  return root;
}

type Node = Mutable | string;

interface Mutable {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: Node[];
}

function parseAttributes(text: string): Map<string, string> {
  const attributes = new Map<string, string>();
  let end = 0;
  for (const [whole, name = '', value = ''] of text.matchAll(ATTRIBUTE)) {
    if (attributes.has(name)) throw new Error(`${name} is given twice`);
    attributes.set(name, decode(value));
    end += whole.length;
  }
  if (text.slice(end).trim() !== '') throw new Error(`not an attribute: ${text.slice(end)}`);
  return attributes;
}

function decode(text: string): string {
  if (/&(?!(amp|lt|gt|quot|#39);)/.test(text)) throw new Error(`a bare "&" in ${text}`);
  return text.replace(REFERENCE, (_, name: string) => CHARACTERS[name] ?? '');
}

/** An element and all below it, in the order of the page. */
export function* elementsOf(element: Element): Generator<Element> {
  yield element;
  for (const child of element.children) if (typeof child !== 'string') yield* elementsOf(child);
}

/** All text in an element; what stands in cells of their own stays apart. */
export function textOf({ name, children }: Element): string {
  const text = children.map((child) => (typeof child === 'string' ? child : textOf(child)));
  return `${text.join('')}${/^(t[dh]|li|p|br|h[1-6])$/.test(name) ? ' ' : ''}`;
}

/** What an accessible page must not lack; one sentence for each thing that it does. */
export function problemsOf(root: Element): string[] {
  const elements = [...elementsOf(root)];
  const ids = elements.flatMap(({ attributes }) => attributes.get('id') ?? []);
  const problems = ids
    .filter((id, index) => ids.indexOf(id) !== index)
    .map((id) => `the id ${id} is there twice`);
  for (const element of elements) problems.push(...problemsOfOne(element, ids));
  let level = 0;
  for (const { name } of elements.filter((each) => /^h[1-6]$/.test(each.name))) {
    const next = Number(name.slice(1));
    if (next > level + 1) problems.push(`<${name}> follows a heading of level ${level}`);
    level = next;
  }
  return problems;
}

function problemsOfOne(element: Element, ids: readonly string[]): string[] {
  const { name, attributes } = element;
  const problems: string[] = [];
  const below = [...elementsOf(element)];
  const has = (child: string) => below.some((each) => each.name === child);
  const link = attributes.get('href');
  if (link !== undefined && !(link.startsWith('#') && ids.includes(link.slice(1))))
    problems.push(`the link ${link} leads nowhere on the page`);
  for (const id of attributes.get('aria-labelledby')?.split(' ') ?? [])
    if (!ids.includes(id)) problems.push(`<${name}> is labelled by ${id}, which is not there`);
  if (name === 'svg' && attributes.get('aria-hidden') !== 'true') {
    const titled = ['title', 'desc'].every((child) => has(child));
    if (!titled || attributes.get('role') !== 'img') problems.push('a picture without a title');
  }
  if (name === 'figure' && !(has('figcaption') && has('details') && has('table')))
    problems.push('a figure without a caption or the table of its data');
  if (name === 'table') {
    const heads = below.filter((each) => each.name === 'th');
    if (!has('caption') || heads.some((head) => !head.attributes.has('scope')))
      problems.push('a table without a caption, or with heads of no scope');
    const widths = below
      .filter((each) => each.name === 'tr')
      .map(({ children }) => children.filter((child) => typeof child !== 'string').length);
    if (new Set(widths).size !== 1) problems.push(`rows of ${widths.join(', ')} cells`);
  }
  if (/^(script|link|iframe|img|image|object|embed|form|use|foreignObject)$/.test(name))
    problems.push(`there is a <${name}>`);
  for (const attribute of attributes.keys())
    if (/^(on|style$|src|xlink)/.test(attribute)) problems.push(`there is a ${attribute}`);
  return problems;
}
