import { type ChatShape, findChatShape, type RenderMessages } from './chat-shape.ts';
import { goTemplateOf } from './go-template.ts';
import { fitsModelfile, type ModelSettings, writeModelfile } from './modelfile-text.ts';

export interface ModelfileInput {
  /** Names of the conversion's GGUF files. */
  readonly ggufFiles: readonly string[];
  /** Metadata of the (first) file, as GGUF has them. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The model's chat template; absent for a model that only continues text. */
  readonly chat?: {
    /** Jinja. */
    readonly source: string;
    readonly render: RenderMessages;
    /** `bos_token`, `eos_token`, … by those names. */
    readonly tokens: Readonly<Record<string, string>>;
  };
  /** `generation_config.json`; empty without one. */
  readonly generation: Readonly<Record<string, unknown>>;
  /** SPDX id or the name of the model's licence. */
  readonly license?: string;
}

export interface Modelfile {
  /** Undefined where Ollama cannot run what there is; the warnings say why. */
  readonly text: string | undefined;
  /** What the model loses in Ollama, one sentence each. */
  readonly warnings: readonly string[];
}

/** The file beside a GGUF that Ollama makes a model of. */
export const MODELFILE = 'Modelfile';

/** What `generation_config.json` calls what Ollama knows, and the range that makes sense. */
const PARAMETERS = [
  ['temperature', 'temperature', 0, 100],
  ['top_k', 'top_k', 0, 1e9],
  ['top_p', 'top_p', 0, 1],
  ['min_p', 'min_p', 0, 1],
  ['repetition_penalty', 'repeat_penalty', 0, 100],
] as const;
const STOPS_MAX = 8;
/** Special tokens as texts: `<|im_end|>`, `</s>`, `[INST]`. */
const SPECIAL = /<[^<>\s]+>|\[\/?[A-Z_]+\]/g;

/**
 * The Modelfile of a finished GGUF conversion. Its template is written only if it makes of
 * conversations what the model's own one does.
 */
export function modelfileOf(input: ModelfileInput): Modelfile {
  const [file, ...others] = input.ggufFiles;
  if (file === undefined || others.length > 0) {
    const what = `The model has ${input.ggufFiles.length} GGUF files, and Ollama runs one`;
    return { text: undefined, warnings: [`${what}: leave split out of the recipe.`] };
  }
  const warnings: string[] = [];
  const settings: ModelSettings = {
    ...chatSettings(input, warnings),
    ...(input.license !== undefined && fitsModelfile(input.license) && { license: input.license }),
  };
  const parameters = { ...settings.parameters, ...samplingParameters(input.generation) };
  return { text: writeModelfile(file, { ...settings, parameters }), warnings };
}

function chatSettings({ chat, metadata }: ModelfileInput, warnings: string[]): ModelSettings {
  // What Ollama does without one, said so that it does nothing else.
  if (chat === undefined) return { template: '{{ .Prompt }}', parameters: {} };
  const bos = chat.tokens['bos_token'] ?? '';
  const shape = findChatShape(chat.render, bos);
  if (shape === undefined) {
    warnings.push(
      "The model's chat template does more than writing turns, so its Modelfile has no TEMPLATE: " +
        'Ollama takes one that it knows, if it finds one much like it, or else plain text. Compare ' +
        'answers before you rely on it.',
    );
    return { parameters: {} };
  }
  warnings.push(...lostParts(shape, chat.source));
  const { defaultSystem: system } = shape;
  const isKept = system === undefined || fitsModelfile(system);
  if (!isKept) warnings.push("The chat template's system prompt cannot stand in a Modelfile.");
  const addsBos = bos !== '' && addsBosToken(metadata) && shape.start.startsWith(bos);
  const start = addsBos ? shape.start.slice(bos.length) : shape.start;
  const stop = stopsOf(shape);
  return {
    template: goTemplateOf({ ...shape, start }),
    ...(system !== undefined && isKept && { system }),
    parameters: stop.length > 0 ? { stop } : {},
  };
}

function lostParts(shape: ChatShape, source: string): readonly string[] {
  return [
    ...(shape.takesSystem
      ? []
      : [
          'The chat template refuses system prompts: the Modelfile writes them before the first ' +
            'question.',
        ]),
    ...(/\btools\b/.test(source)
      ? ['The chat template knows tools, and the Modelfile does not: in Ollama the model has none.']
      : []),
    ...(/\bstrftime_now\b/.test(source)
      ? ['The chat template writes the date of the day, and the Modelfile always the same date.']
      : []),
  ];
}

/** Whether Ollama puts the token that begins a sequence before each prompt, as llama.cpp does. */
function addsBosToken(metadata: Readonly<Record<string, unknown>>): boolean {
  const said = metadata['tokenizer.ggml.add_bos_token'];
  if (typeof said === 'boolean') return said;
  const isBpeWithBos = ['llama3', 'llama-v3', 'llama-bpe', 'tekken'].includes(
    String(metadata['tokenizer.ggml.pre']),
  );
  return metadata['tokenizer.ggml.model'] === 'llama' || isBpeWithBos;
}

/**
 * Texts at which an answer is over. The token that ends a sequence is in the GGUF; these are what
 * stands between an answer and the next turn: special tokens, or else how that turn begins.
 */
function stopsOf({ assistant, user }: ChatShape): readonly string[] {
  const between = assistant.close + user.open;
  const special = [...new Set(between.match(SPECIAL) ?? [])].slice(0, STOPS_MAX);
  if (special.length > 0) return special;
  const next = between.trimEnd();
  return user.open.trim() === '' || !fitsModelfile(next) ? [] : [next];
}

function samplingParameters(
  generation: Readonly<Record<string, unknown>>,
): Readonly<Record<string, number>> {
  const found = PARAMETERS.flatMap(([name, ollamaName, from, to]) => {
    const value = generation[name];
    return typeof value === 'number' && value >= from && value <= to ? [[ollamaName, value]] : [];
  });
  const isGreedy = generation['do_sample'] === false;
  return { ...Object.fromEntries(found), ...(isGreedy && { temperature: 0 }) };
}
