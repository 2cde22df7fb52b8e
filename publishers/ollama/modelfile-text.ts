import { WeldlineError } from '../../engine/errors.ts';

/** What Ollama is told of a model beside its weights. */
export interface ModelSettings {
  /** Go's `text/template`. Without one Ollama compares the file's own template with those it knows. */
  readonly template?: string;
  /** The system prompt of conversations that have none. */
  readonly system?: string;
  /** As Ollama names them: `stop`, `temperature`, … */
  readonly parameters: Readonly<Record<string, number | readonly string[]>>;
  readonly license?: string;
}

/** Quotes that Ollama reads texts of any content between, but these. */
const QUOTES = '"""';
/** Templates and prompts have some pages. */
const LENGTH_MAX = 4 << 20;

/**
 * Whether a Modelfile can hold a text: Ollama's parser drops what does not print, and ends texts at
 * three quotes.
 */
export function fitsModelfile(text: string): boolean {
  return !text.includes(QUOTES) && !/[^\P{C}\n\t]|[^\P{Z} ]/u.test(text);
}

/**
 * A Modelfile: `ollama create NAME -f Modelfile` makes the model from the directory that it is in.
 * @param file name of the GGUF beside it
 */
export function writeModelfile(file: string, settings: ModelSettings): string {
  const { template, system, parameters, license } = settings;
  const text = (value: string): string => `${QUOTES}${value}${QUOTES}`;
  return [
    `FROM ./${file}`,
    ...(template === undefined ? [] : [`TEMPLATE ${text(template)}`]),
    ...(system === undefined ? [] : [`SYSTEM ${text(system)}`]),
    ...Object.entries(parameters).flatMap(([name, value]) =>
      typeof value === 'number'
        ? [`PARAMETER ${name} ${value}`]
        : value.map((each) => `PARAMETER ${name} ${text(each)}`),
    ),
    ...(license === undefined ? [] : [`LICENSE ${text(license)}`]),
    '',
  ].join('\n');
}

/**
 * Reads a Modelfile as {@link writeModelfile} writes it; comments and texts without quotes may be in
 * it too.
 * @param path for errors
 * @throws WeldlineError `publish.rejected`
 */
export function readModelfile(content: string, path: string): ModelSettings {
  const refuse = (what: string): WeldlineError =>
    new WeldlineError(
      'publish.rejected',
      `${path} ${what}. weldline sends Ollama TEMPLATE, SYSTEM, PARAMETER and LICENSE of it; ` +
        'publish the release again from what weldline made.',
    );
  if (content.length > LENGTH_MAX) throw refuse('is too large for a Modelfile');
  const settings: { template?: string; system?: string; license?: string } = {};
  const parameters: Record<string, number | string[]> = {};
  const text = content.trim();
  const line = /\s*(?:#.*|(PARAMETER +)?(\w+) +(?:"""([\s\S]*?)"""|(.*)))(?:\n|$)/y;
  while (line.lastIndex < text.length) {
    const at = line.lastIndex;
    const [, parameter, name, quoted, bare = ''] = line.exec(text) ?? [];
    if (line.lastIndex === 0) throw refuse(`cannot be read from "${text.slice(at, at + 40)}" on`);
    const value = quoted ?? bare.trim();
    if (name === undefined || name === 'FROM') continue;
    if (parameter !== undefined) {
      const before = parameters[name];
      const isNumber = quoted === undefined && Number.isFinite(Number(value));
      parameters[name] = isNumber ? Number(value) : [...(isList(before) ? before : []), value];
    } else if (name === 'TEMPLATE') settings.template = value;
    else if (name === 'SYSTEM') settings.system = value;
    else if (name === 'LICENSE') settings.license = value;
    else throw refuse(`has ${name}`);
  }
  return { ...settings, parameters };
}

function isList(value: number | string[] | undefined): value is string[] {
  return typeof value === 'object';
}
