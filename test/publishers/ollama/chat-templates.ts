import { readFileSync } from 'node:fs';
import { type ChatTemplate, renderChat } from '../../../evaluation/suites/chat-template.ts';
import type { ModelfileInput } from '../../../publishers/ollama/modelfile.ts';

const LLAMA_TOKENS = { bos_token: '<s>', eos_token: '</s>' };
const GEMMA_TOKENS = { bos_token: '<bos>', eos_token: '<eos>' };

/** `role` turns of Gemma, with what is to become of a system prompt. */
const gemma = (start: string, first: string): string =>
  `{{ bos_token }}${start}{% for message in messages %}` +
  "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" +
  "{{ raise_exception('Roles must alternate') }}{% endif %}" +
  "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}" +
  `{{ '<start_of_turn>' + role + '\n' }}${first}` +
  "{{ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

/** Written for these tests in the ways of published models, whose names they have. */
const WRITTEN: Readonly<Record<string, { source: string; tokens: Record<string, string> }>> = {
  'llama-2': {
    tokens: LLAMA_TOKENS,
    source:
      "{% set sys = '' %}{% if messages[0]['role'] == 'system' %}" +
      "{% set sys = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}" +
      '{% set messages = messages[1:] %}{% endif %}{% for message in messages %}' +
      "{% if message['role'] == 'user' %}" +
      "{{ bos_token + '[INST] ' + (sys if loop.first else '') + message['content'] + ' [/INST]' }}" +
      "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}",
  },
  'llama-3': {
    tokens: { bos_token: '<|begin_of_text|>', eos_token: '<|eot_id|>' },
    source:
      "{% for message in messages %}{% set text = '<|start_header_id|>' + message['role'] + " +
      "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}" +
      '{% if loop.first %}{{ bos_token }}{% endif %}{{ text }}{% endfor %}' +
      "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}" +
      '{% endif %}',
  },
  'gemma-2': {
    tokens: GEMMA_TOKENS,
    source: gemma(
      "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}",
      '',
    ),
  },
  'gemma-3': {
    tokens: GEMMA_TOKENS,
    source: gemma(
      "{% set sys = '' %}{% if messages[0]['role'] == 'system' %}" +
        "{% set sys = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}",
      '{{ sys if loop.first else "" }}',
    ),
  },
  zephyr: {
    tokens: LLAMA_TOKENS,
    source:
      "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + " +
      "eos_token + '\n' }}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}" +
      '{% endif %}{% endfor %}',
  },
  'prefixed-system': {
    tokens: LLAMA_TOKENS,
    source:
      "[gMASK]<sop>{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + " +
      "message['content'] }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}" +
      '{% endif %}',
  },
  'odd-text': {
    tokens: LLAMA_TOKENS,
    source:
      '{% for message in messages %}«\u00a0{{ message["role"] }} \\ "\t`\u200d🎉{{ "{{" }}' +
      '{{ message["content"] }}\r\n{% endfor %}',
  },
};

interface GoldenChats {
  readonly templates: readonly {
    readonly name: string;
    readonly config: Readonly<Record<string, unknown>>;
    readonly file: string | null;
  }[];
}

/** All templates that are tried, by name: those above, and those of `test/golden/chat.json`. */
export function chatTemplates(): ReadonlyMap<string, ChatTemplate> {
  const path = new URL('../../golden/chat.json', import.meta.url);
  const { templates } = JSON.parse(readFileSync(path, 'utf8')) as GoldenChats;
  const golden = templates.flatMap(({ name, config, file }) => {
    const source = file ?? config['chat_template'];
    if (typeof source !== 'string') return [];
    const tokens = Object.fromEntries(
      Object.entries(config).filter(
        (entry): entry is [string, string] =>
          entry[0].endsWith('_token') && typeof entry[1] === 'string',
      ),
    );
    return [[name, { source, path: name, tokens }] as const];
  });
  const written = Object.entries(WRITTEN).map(
    ([name, template]) => [name, { ...template, path: name }] as const,
  );
  return new Map([...golden, ...written]);
}

export function chatOf(template: ChatTemplate): NonNullable<ModelfileInput['chat']> {
  const { source, tokens } = template;
  return {
    source,
    tokens,
    render: (messages, addGenerationPrompt) => renderChat(template, messages, addGenerationPrompt),
  };
}

/** What the Modelfile of a template is made from; the tokenizer adds the first token. */
export function modelfileInput(template: ChatTemplate): ModelfileInput {
  return {
    ggufFiles: ['model.gguf'],
    metadata: { 'tokenizer.ggml.add_bos_token': true },
    chat: chatOf(template),
    generation: { do_sample: true, temperature: 0.6, top_k: 20, top_p: 0.95 },
    license: 'apache-2.0',
  };
}

/** Conversations that Ollama's own template code is asked to write. */
export const CONVERSATIONS = {
  question: [{ role: 'user', content: 'What is 2 + 2?' }],
  system: [
    { role: 'system', content: 'Answer in one word.' },
    { role: 'user', content: 'Capital of Norway?' },
  ],
  turns: [
    { role: 'user', content: 'Grüße & <tags> 日本 🎉' },
    { role: 'assistant', content: 'Hello.\n\nHow are you?' },
    { role: 'user', content: 'Fine\n{{ not_a_template }}' },
  ],
  'system-turns': [
    { role: 'system', content: 'Be "kind".' },
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Hello' },
    { role: 'user', content: 'Why?' },
    { role: 'assistant', content: 'Because' },
    { role: 'user', content: 'Really?' },
  ],
} as const;
