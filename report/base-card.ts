import { parse } from 'yaml';
import { MODEL_CONFIG_FILE } from '../engine/architectures/model-config.ts';
import type { ModelFiles } from '../engine/model-files.ts';

/** What a base says of itself that holds for what is merged into it too. Plain data. */
export interface BaseCard {
  readonly license?: BaseLicense;
  /** Codes, as its card has them. */
  readonly languages?: readonly string[];
  /** The hub's name of the task: its card's, or what its architecture is for. */
  readonly pipelineTag?: string;
  readonly architecture?: { readonly name: string; readonly family?: string };
}

export interface BaseLicense {
  /** As the hub calls it: `apache-2.0`, `llama3.1`, `other`. */
  readonly id: string;
  /** What it is called where the id is `other`. */
  readonly name?: string;
  /** A URL, or the path of a file of the base. */
  readonly link?: string;
}

/** A card has some kilobytes; of a licence its head says which it is. */
const TEXT_BYTES_MAX = 1024 * 1024;
const LANGUAGES_MAX = 200;

/**
 * Reads the card, the licence and the configuration of a base. What cannot be read says nothing: a
 * release does not fail by its base's card.
 */
export async function readBaseCard(files: ModelFiles): Promise<BaseCard> {
  const path = [...files.sizes.keys()].find((each) => /^LICEN[CS]E([.-][^/]*)?$/i.test(each));
  const [readme, license, config] = await Promise.all(
    ['README.md', path, MODEL_CONFIG_FILE].map((each) => readHead(files, each)),
  );
  return parseBaseCard({
    ...(readme !== undefined && { readme }),
    ...(path !== undefined && license !== undefined && { license: { path, text: license } }),
    ...(config !== undefined && { config }),
  });
}

async function readHead(files: ModelFiles, path: string | undefined): Promise<string | undefined> {
  const size = path === undefined ? undefined : files.sizes.get(path);
  if (path === undefined || size === undefined) return undefined;
  const source = await files.open(path);
  try {
    const bytes = await source.read(0, Math.min(size, TEXT_BYTES_MAX));
    return new TextDecoder().decode(bytes);
  } finally {
    await source.close();
  }
}

export interface BaseTexts {
  readonly readme?: string;
  readonly license?: { readonly path: string; readonly text: string };
  readonly config?: string;
}

export function parseBaseCard({ readme, license, config }: BaseTexts): BaseCard {
  const fields = asRecord(parseFrontMatter(readme ?? ''));
  const architecture = architectureOf(asRecord(parseText(config ?? '', JSON.parse)));
  const named = licenseInCard(fields) ?? (license && recognize(license.text, license.path));
  const languages = [fields['language'] ?? []]
    .flat()
    .filter((each): each is string => matches(each, /^[A-Za-z][\w-]{1,30}$/))
    .slice(0, LANGUAGES_MAX);
  const tag = fields['pipeline_tag'];
  const pipelineTag = matches(tag, /^[a-z][a-z0-9-]{1,60}$/)
    ? tag
    : architecture && taskOf(architecture);
  return {
    ...(named && { license: named }),
    ...(languages.length > 0 && { languages }),
    ...(pipelineTag !== undefined && { pipelineTag }),
    ...(architecture && {
      architecture: {
        name: architecture.name,
        ...(architecture.family !== undefined && { family: architecture.family }),
      },
    }),
  };
}

function parseFrontMatter(readme: string): unknown {
  const [, yaml] = /^\uFEFF?---\r?\n([\s\S]*?)\r?\n---[ \t]*(\r?\n|$)/.exec(readme) ?? [];
  // Aliases can make a small text a huge value, and no card needs them.
  return yaml === undefined
    ? undefined
    : parseText(yaml, (text) => parse(text, { maxAliasCount: 0, logLevel: 'silent' }));
}

function parseText(text: string, parser: (text: string) => unknown): unknown {
  try {
    return parser(text);
  } catch {
    return undefined;
  }
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function matches(value: unknown, pattern: RegExp): value is string {
  return typeof value === 'string' && pattern.test(value);
}

function licenseInCard(fields: Readonly<Record<string, unknown>>): BaseLicense | undefined {
  const [id] = [fields['license']].flat();
  if (!matches(id, /^[A-Za-z0-9][\w.+-]{0,99}$/)) return undefined;
  const { license_name: name, license_link: link } = fields;
  return {
    id,
    ...(matches(name, /^[^\n]{1,200}$/) && { name }),
    ...(matches(link, /^(https?:\/\/[^\s]{1,1000}|[\w.-]+)$/) && { link }),
  };
}

/** Which licence a file has, by the words that no other begins with. */
function recognize(text: string, path: string): BaseLicense | undefined {
  if (/Apache License\s+Version 2\.0/.test(text)) return { id: 'apache-2.0' };
  if (/Permission is hereby granted, free of charge, to any person/.test(text)) {
    return { id: 'mit' };
  }
  const llama = /LLAMA\s+(\d(?:\.\d)?)\s+(?:VERSION\s+)?COMMUNITY LICENSE/i.exec(text)?.[1];
  if (llama !== undefined) return { id: `llama${llama}` };
  const title = text.split('\n').find((line) => /[A-Za-z]/.test(line)) ?? '';
  const name = title
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return name === '' ? undefined : { id: 'other', name: name.slice(0, 100), link: path };
}

interface Architecture {
  readonly name: string;
  readonly family?: string;
  readonly hasVision: boolean;
}

function architectureOf(config: Readonly<Record<string, unknown>>): Architecture | undefined {
  const [name] = [config['architectures'] ?? []].flat();
  if (!matches(name, /^\w{1,100}$/)) return undefined;
  const family = config['model_type'];
  return {
    name,
    ...(matches(family, /^[\w.-]{1,100}$/) && { family }),
    hasVision: 'vision_config' in config,
  };
}

/** What the end of an architecture's name says of its task. */
const TASKS: readonly (readonly [RegExp, string])[] = [
  [/ForCausalLM$|LMHeadModel$/, 'text-generation'],
  [/ForSequenceClassification$/, 'text-classification'],
  [/ForTokenClassification$/, 'token-classification'],
  [/ForQuestionAnswering$/, 'question-answering'],
  [/ForMaskedLM$/, 'fill-mask'],
];

function taskOf({ name, hasVision }: Architecture): string | undefined {
  if (/ForConditionalGeneration$/.test(name)) return hasVision ? 'image-text-to-text' : undefined;
  return TASKS.find(([pattern]) => pattern.test(name))?.[1];
}
