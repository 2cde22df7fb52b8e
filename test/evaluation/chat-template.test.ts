import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type ChatMessage,
  readChatTemplate,
  renderChat,
} from '../../evaluation/suites/chat-template.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

interface Golden {
  readonly conversations: Readonly<Record<string, readonly ChatMessage[]>>;
  readonly templates: readonly {
    readonly name: string;
    readonly config: object;
    readonly file: string | null;
    readonly texts: Readonly<Record<string, { readonly text?: string; readonly error?: string }>>;
  }[];
}

const golden = JSON.parse(
  readFileSync(new URL('../golden/chat.json', import.meta.url), 'utf8'),
) as Golden;
const QUESTION = golden.conversations['question']!;

async function tokenizer(config: unknown, file?: string | null): Promise<string> {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, 'tokenizer_config.json'), JSON.stringify(config));
  if (typeof file === 'string') await writeFile(join(directory, 'chat_template.jinja'), file);
  return directory;
}

async function render(source: string): Promise<string> {
  const template = await readChatTemplate(await tokenizer({ chat_template: source }));
  return renderChat(template!, QUESTION);
}

describe('chat templates', () => {
  it.each(golden.templates)('write what transformers writes: $name', async (given) => {
    const template = await readChatTemplate(await tokenizer(given.config, given.file));
    for (const [name, { text, error }] of Object.entries(given.texts)) {
      const messages = golden.conversations[name]!;
      if (error === undefined) expect(renderChat(template!, messages), name).toBe(text);
      else expect(() => renderChat(template!, messages), name).toThrow(error);
    }
  });

  it('are not there in a checkpoint without one', async () => {
    expect(await readChatTemplate(await tokenizer({ bos_token: '<s>' }))).toBeUndefined();
    expect(await readChatTemplate(await temporaryDirectory())).toBeUndefined();
  });

  it.each([
    ['{% for m in messages %}', 'evaluate.template-failed'],
    ['{{ raise_exception("only with tools") }}', 'says: only with tools'],
    ['{{ messages | no_such_filter }}', 'no_such_filter'],
    ['{{ messages.constructor.constructor("return process")() }}', 'evaluate.template-failed'],
  ])('that fail say where and why: %s', async (source, reason) => {
    const error = await render(source).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'evaluate.template-failed' });
    expect(`${(error as { code: string }).code} ${(error as Error).message}`).toContain(reason);
    expect((error as Error).message).toContain('tokenizer_config.json');
  });

  it.each([
    ['loop', `${'{% for i in range(90000) %}'.repeat(3)}x${'{% endfor %}'.repeat(3)}`],
    ['count for ever', '{% for i in range(1000000000000) %}{% endfor %}'],
    ['count in no steps', '{% for i in range(0, 5, 0) %}{% endfor %}'],
    [
      'grow without end',
      "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    ],
  ])('that %s are stopped', async (_, source) => {
    const started = Date.now();
    await expect(render(source)).rejects.toMatchObject({ code: 'evaluate.template-failed' });
    expect(Date.now() - started).toBeLessThan(20_000);
  });

  it('that are named need one called default', async () => {
    const directory = await tokenizer({ chat_template: [{ name: 'rag', template: 'x' }] });
    await expect(readChatTemplate(directory)).rejects.toThrow(
      /none of them is called "default".*rag/,
    );
  });

  it('in a damaged configuration are an error that names the file', async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, 'tokenizer_config.json'), '{"chat_template": ');
    await expect(readChatTemplate(directory)).rejects.toThrow(
      /tokenizer_config\.json cannot be parsed/,
    );
  });
});
