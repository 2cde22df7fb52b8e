import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { renderChat } from '../../../evaluation/suites/chat-template.ts';
import { findChatShape, writeConversation } from '../../../publishers/ollama/chat-shape.ts';
import { type ModelfileInput, modelfileOf } from '../../../publishers/ollama/modelfile.ts';
import { readModelfile, writeModelfile } from '../../../publishers/ollama/modelfile-text.ts';
import { CONVERSATIONS, chatOf, chatTemplates, modelfileInput } from './chat-templates.ts';

interface Golden {
  readonly cases: readonly {
    readonly name: string;
    readonly modelfile: string;
    /** As Ollama's own parser reads the file. */
    readonly commands: readonly { readonly Name: string; readonly Args: string }[];
    /** What Ollama makes of the conversations. */
    readonly texts: Readonly<Record<string, string>>;
  }[];
}

const golden = JSON.parse(
  readFileSync(new URL('../../golden/ollama-templates.json', import.meta.url), 'utf8'),
) as Golden;
const templates = chatTemplates();
/** Templates that do more than writing turns. */
const BEYOND_TURNS = ['reasoning', 'filters', 'tokens'];
/** Templates that refuse system prompts. */
const WITHOUT_SYSTEM = ['gemma-2'];

function settingsOf(input: ModelfileInput) {
  const { text } = modelfileOf(input);
  return readModelfile(text ?? '', 'Modelfile');
}

describe('Modelfiles', () => {
  it('are the ones that Ollama was asked about', () => {
    expect(golden.cases.map(({ name }) => name)).toEqual([...templates.keys()]);
    for (const { name, modelfile } of golden.cases) {
      expect(modelfileOf(modelfileInput(templates.get(name)!)).text, name).toBe(modelfile);
    }
  });

  it.each(golden.cases)('Ollama reads of $name what weldline reads', ({ modelfile, commands }) => {
    const { template, system, parameters, license } = readModelfile(modelfile, 'Modelfile');
    const given = (name: string): string[] =>
      commands.filter(({ Name }) => Name === name).map(({ Args }) => Args);
    expect(given('model')).toEqual(['./model.gguf']);
    expect(given('template')).toEqual(template === undefined ? [] : [template]);
    expect(given('system')).toEqual(system === undefined ? [] : [system]);
    expect(given('license')).toEqual([license]);
    const names = new Set(commands.map(({ Name }) => Name));
    for (const name of ['model', 'template', 'system', 'license']) names.delete(name);
    expect(names).toEqual(new Set(Object.keys(parameters)));
    for (const name of names) expect(given(name)).toEqual([parameters[name]].flat().map(String));
  });

  it.each(golden.cases)('Ollama writes with $name what its chat template writes', (each) => {
    const template = templates.get(each.name)!;
    if (BEYOND_TURNS.includes(each.name)) {
      expect(each.texts).toEqual({});
      return;
    }
    expect(Object.keys(each.texts).sort()).toEqual(Object.keys(CONVERSATIONS).sort());
    for (const [id, messages] of Object.entries(CONVERSATIONS)) {
      const isRefused = WITHOUT_SYSTEM.includes(each.name) && messages[0].role === 'system';
      const expected = isRefused
        ? renderChat(template, folded(messages))
        : renderChat(template, messages);
      // The tokenizer adds the first token, which most templates write too.
      const { start } = findChatShape(chatOf(template).render, template.tokens['bos_token'] ?? '')!;
      const bos = template.tokens['bos_token'] ?? '';
      const cut = bos !== '' && start.startsWith(bos) ? bos.length : 0;
      expect(each.texts[id], id).toBe(expected.slice(cut));
    }
  });

  it.each([...templates])('%s is written by its shape as by its template', (name, template) => {
    const shape = findChatShape(chatOf(template).render, template.tokens['bos_token'] ?? '');
    expect(shape === undefined).toBe(BEYOND_TURNS.includes(name));
    if (shape === undefined) return;
    for (const messages of [CONVERSATIONS.question, CONVERSATIONS.turns]) {
      expect(writeConversation(shape, messages)).toBe(renderChat(template, messages));
    }
  });

  it('have no template where rendering disagrees, and say so', () => {
    for (const name of BEYOND_TURNS) {
      const { text, warnings } = modelfileOf(modelfileInput(templates.get(name)!));
      expect(text).not.toContain('TEMPLATE');
      expect(warnings.join()).toContain('no TEMPLATE');
    }
    const late = "{% if messages | length > 3 and messages[0].role == 'system' %}!{% endif %}";
    const source = late + templates.get('llama-3')!.source;
    const template = { ...templates.get('llama-3')!, source };
    expect(modelfileOf(modelfileInput(template)).text).not.toContain('TEMPLATE');
  });

  it('say what is lost: system prompts, tools, the date', () => {
    const warningsOf = (name: string) =>
      modelfileOf(modelfileInput(templates.get(name)!)).warnings.join(' ');
    expect(warningsOf('gemma-2')).toContain('refuses system prompts');
    expect(warningsOf('date')).toMatch(/knows tools.*date of the day/);
    expect(warningsOf('smollm2')).toBe('');
  });

  it('continue plain text for a model without a chat template', () => {
    const { chat: _, ...plain } = modelfileInput(templates.get('tiny')!);
    expect(settingsOf(plain)).toMatchObject({ template: '{{ .Prompt }}' });
  });

  it('write the first token where the tokenizer does not add it', () => {
    const input = modelfileInput(templates.get('gemma-3')!);
    expect(settingsOf(input).template).not.toContain('<bos>');
    for (const metadata of [
      { 'tokenizer.ggml.add_bos_token': false, 'tokenizer.ggml.model': 'llama' },
      { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'qwen2' },
    ]) {
      expect(settingsOf({ ...input, metadata }).template).toMatch(/^\{\{ "<bos>" \}\}/);
    }
    const bpe = { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'llama-bpe' };
    expect(settingsOf({ ...input, metadata: bpe }).template).not.toContain('<bos>');
  });

  it('stop where the next turn begins', () => {
    const stopsOf = (name: string) => settingsOf(modelfileInput(templates.get(name)!)).parameters;
    expect(stopsOf('tiny')).toMatchObject({ stop: ['\nuser:'] });
    expect(stopsOf('smollm2')).toMatchObject({ stop: ['<|im_end|>', '<|im_start|>'] });
    expect(stopsOf('gemma-3')).toMatchObject({ stop: ['<end_of_turn>', '<start_of_turn>'] });
  });

  it('take from the generation config what makes sense', () => {
    const input = modelfileInput(templates.get('reasoning')!);
    const parametersOf = (generation: object) =>
      settingsOf({ ...input, generation: generation as Record<string, unknown> }).parameters;
    expect(parametersOf({ temperature: 0.7, do_sample: false, repetition_penalty: 1.1 })).toEqual({
      temperature: 0,
      repeat_penalty: 1.1,
    });
    expect(parametersOf({ top_p: 7, top_k: 'x', temperature: Number.NaN, min_p: 0.05 })).toEqual({
      min_p: 0.05,
    });
  });

  it('are not written for a model in several files', () => {
    const ggufFiles = ['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf'];
    const { text, warnings } = modelfileOf({
      ...modelfileInput(templates.get('tiny')!),
      ggufFiles,
    });
    expect(text).toBeUndefined();
    expect(warnings.join()).toContain('leave split out');
  });

  it('come back as they were written, and refuse what is none', () => {
    const settings = {
      template: 'a "quoted" \\ text\n\n# no comment\nPARAMETER stop x',
      system: ' spaces ',
      parameters: { top_p: 0.5, stop: ['\nuser:', '"'], num_ctx: 4096 },
      license: 'mit',
    };
    expect(readModelfile(writeModelfile('m.gguf', settings), 'x')).toEqual(settings);
    expect(readModelfile('# hand-made\nFROM ./x\n\nSYSTEM Be kind.\n', 'x')).toEqual({
      system: 'Be kind.',
      parameters: {},
    });
    for (const text of ['FROM ./x\nADAPTER ./y\n', 'FROM ./x\nMESSAGE user hi\n', '<html>']) {
      expect(() => readModelfile(text, 'dir/Modelfile'), text).toThrow(
        expect.objectContaining({ code: 'publish.rejected' }),
      );
    }
  });
});

/** A system prompt before the first question, where a template has no place for it. */
function folded(messages: readonly { readonly role: string; readonly content: string }[]) {
  const [system, question, ...more] = messages;
  return [{ role: 'user', content: `${system?.content}\n\n${question?.content}` }, ...more];
}
