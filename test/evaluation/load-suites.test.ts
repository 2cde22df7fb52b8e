import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { RecipeSuite } from '../../config/release-quality.ts';
import { loadSuites } from '../../evaluation/load-suites.ts';
import type { Suite } from '../../evaluation/suite.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

const TINY = fileURLToPath(new URL('../../examples/tiny', import.meta.url));
const BASE = `${TINY}/base`;

const SUITE: Omit<RecipeSuite, 'data'> = {
  id: 'sums',
  adapter: 'calculator',
  matcher: 'contains',
  newTokensMax: 12,
  dropMax: 0.001,
};

async function load(
  content: string | Uint8Array,
  settings: Partial<RecipeSuite> = {},
  tokenizer = BASE,
): Promise<Suite> {
  const data = join(await temporaryDirectory(), 'suite.jsonl');
  await writeFile(data, content);
  const [suite] = await loadSuites([{ ...SUITE, data, ...settings }], tokenizer);
  return suite!;
}

function lines(...values: unknown[]): string {
  return values.map((value) => `${JSON.stringify(value)}\n`).join('');
}

describe('suites', () => {
  it('are the exercises of a file in its order', async () => {
    const data = `${TINY}/eval/calculator.jsonl`;
    const [suite] = await loadSuites([{ ...SUITE, data }], BASE);
    expect(suite!.exercises).toHaveLength(20);
    expect(suite!.exercises[0]).toEqual({
      index: 0,
      prompt: 'Q: 9+1 =',
      addSpecialTokens: true,
      expected: ' [10]',
      matcher: 'contains',
    });
    expect(suite!.warnings).toBeUndefined();
    expect(suite!.text).toBeUndefined();
  });

  it('may have other matchers, several right answers, JSON, and keys of their own', async () => {
    const { exercises } = await load(
      `\ufeff${lines(
        { prompt: 'a', expected: ['x', 'y'], matcher: 'exact', id: 5, source: 'here' },
        { prompt: 'b', expected: { z: 1, a: [2] }, matcher: 'json' },
      )}\r\n\n`,
    );
    expect(exercises.map(({ expected, matcher }) => [expected, matcher])).toEqual([
      [['x', 'y'], 'exact'],
      ['{"a":[2],"z":1}', 'json'],
    ]);
  });

  it('write conversations with the chat template, once', async () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    const { exercises } = await load(lines({ messages, expected: 'x' }));
    expect(exercises[0]).toMatchObject({
      prompt: '<s>user: Hi\nassistant:',
      addSpecialTokens: false,
    });
  });

  it('have a digest of what decides answers and scores, and of nothing else', async () => {
    const one = { prompt: 'a', expected: 'x' };
    const { digest } = await load(lines(one));
    expect((await load(lines(one), { id: 'other', dropMax: 0.5, scoreMin: 1 })).digest).toBe(
      digest,
    );
    expect((await load(`\n${JSON.stringify({ expected: 'x', prompt: 'a' })}`)).digest).toBe(digest);
    const others = [
      await load(lines({ ...one, prompt: 'b' })),
      await load(lines({ ...one, expected: 'y' })),
      await load(lines(one), { matcher: 'exact' }),
      await load(lines(one), { newTokensMax: 13 }),
      await load(lines(one, one)),
    ];
    expect(new Set([digest, ...others.map((suite) => suite.digest)]).size).toBe(6);
  });

  it('take text for perplexity, alone or beside prompts', async () => {
    const text = join(await temporaryDirectory(), 'text.txt');
    await writeFile(text, 'Some text.\n');
    const [alone] = await loadSuites([{ ...SUITE, text }], BASE);
    expect(alone).toMatchObject({ text: 'Some text.\n', exercises: [] });
    await writeFile(text, 'Other text.\n');
    const [other] = await loadSuites([{ ...SUITE, text }], BASE);
    expect(other!.digest).not.toBe(alone!.digest);
    await writeFile(text, ' \n');
    await expect(loadSuites([{ ...SUITE, text }], BASE)).rejects.toThrow(/text\.txt is empty/);
  });

  it('warn of prompts that are there twice', async () => {
    const one = { prompt: 'a', expected: 'x' };
    const { warnings } = await load(lines(one, { ...one, prompt: 'b' }, { ...one, expected: 'y' }));
    expect(warnings).toEqual([expect.stringContaining('line 3 repeats line 1')]);
  });

  it.each<[string, string | Uint8Array, RegExp]>([
    ['no JSON', 'prompt: a\n', /suite\.jsonl:1 is no JSON/],
    ['a list', '[1]\n', /:1 file: /],
    ['nothing', '\n\n', /suite\.jsonl holds no prompt/],
    ['another type', lines({ prompt: 5, expected: 'x' }), /:1 prompt: /],
    ['an empty prompt', lines({ prompt: '', expected: 'x' }), /:1 prompt: is empty/],
    ['no prompt', `\n${lines({ expected: 'x' })}`, /:2 give either prompt .* or messages/],
    [
      'both',
      lines({ prompt: 'a', messages: [{ role: 'u', content: '' }], expected: '' }),
      /either/,
    ],
    ['no expectation', lines({ prompt: 'a' }), /:1 expected: is missing/],
    ['a number expected', lines({ prompt: 'a', expected: 10 }), /:1 expected: write a text/],
    ['nothing expected', lines({ prompt: 'a', expected: [] }), /:1 expected: the list is empty/],
    ['what all match', lines({ prompt: 'a', expected: '' }), /:1 expected: is empty.*contains/],
    ['an unknown matcher', lines({ prompt: 'a', expected: 'x', matcher: 'fuzzy' }), /:1 matcher: /],
    [
      'a misspelling',
      lines({ prompt: 'a', expected: 'x', matchr: 'exact' }),
      /did you mean "matcher"/,
    ],
    [
      'a bad pattern',
      lines({ prompt: 'a', expected: '(', matcher: 'regex' }),
      /:1 expected: is no regular expression/,
    ],
    ['half a character', '{"prompt": "\\ud800", "expected": "x"}', /:1 prompt: holds half/],
    ['no role', lines({ messages: [{ content: 'x' }], expected: 'x' }), /:1 messages\.0\.role/],
    [
      'pictures',
      lines({ messages: [{ role: 'u', content: [] }], expected: 'x' }),
      /messages\.0\.content/,
    ],
    ['no messages', lines({ messages: [], expected: 'x' }), /:1 messages: /],
    ['deep JSON', `{"prompt": ${'['.repeat(500)}${']'.repeat(500)}}`, /:1 is no JSON.*deep/],
    ['Latin 1', Uint8Array.of(0x7b, 0xe9, 0x7d), /not text in UTF-8/],
  ])('refuse %s by file, line and field', async (_, content, message) => {
    const loading = load(content);
    await expect(loading).rejects.toMatchObject({ code: 'evaluate.suite-invalid' });
    await expect(loading).rejects.toThrow(message);
  });

  it('with conversations need a chat template', async () => {
    const content = lines({ messages: [{ role: 'user', content: 'Hi' }], expected: 'x' });
    await expect(load(content, {}, await temporaryDirectory())).rejects.toThrow(
      /suite\.jsonl has messages, and the base model has no chat template/,
    );
  });

  it('that are not there are an error that names them', async () => {
    const data = join(await temporaryDirectory(), 'missing.jsonl');
    await expect(loadSuites([{ ...SUITE, data }], BASE)).rejects.toThrow(
      /missing\.jsonl does not exist/,
    );
  });
});
