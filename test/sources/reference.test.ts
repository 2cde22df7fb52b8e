import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatHubReference, parseModelReference } from '../../sources/reference.ts';

const parse = (text: string) => parseModelReference(text, '/recipes');

describe('parseModelReference', () => {
  it.each([
    ['./adapters/support', '/recipes/adapters/support'],
    ['../base', '/base'],
    ['/models/llama', '/models/llama'],
    ['meta/llama', '/recipes/meta/llama'],
    ['file:///models/my%20llama', '/models/my llama'],
  ])('takes %s for a directory', (text, path) => {
    expect(parse(text)).toEqual({ kind: 'directory', path });
  });

  it.each([
    ['hf://org/name', 'org/name', 'main', ''],
    ['hf://gpt2', 'gpt2', 'main', ''],
    ['hf://gpt2@v1', 'gpt2', 'v1', ''],
    ['HF://org/name@v1.0', 'org/name', 'v1.0', ''],
    ['hf://org/name@feature%2Fnew', 'org/name', 'feature/new', ''],
    ['hf://org/name@refs/pr/7', 'org/name', 'refs/pr/7', ''],
    ['hf://org/name@refs/pr/7/sub', 'org/name', 'refs/pr/7', 'sub'],
    ['hf://org/name/checkpoint-500', 'org/name', 'main', 'checkpoint-500'],
    ['hf://org/name@v1/a/b/', 'org/name', 'v1', 'a/b'],
    [`hf://a-b/c_d.e@${'0'.repeat(40)}`, 'a-b/c_d.e', '0'.repeat(40), ''],
  ])('reads %s', (text, repo, revision, folder) => {
    expect(parse(text)).toEqual({ kind: 'hub', repo, revision, folder });
  });

  it.each(['gs://bucket/model', 'ftp://host/model', 'ollama://llama3', 'hub://x'])(
    'does not know %s and says what it knows',
    (text) => {
      expect(() => parse(text)).toThrow(
        expect.objectContaining({
          code: 'source.unsupported-scheme',
          message: expect.stringContaining('hf://org/name[@revision][/folder]'),
        }),
      );
    },
  );

  it.each([
    '',
    '  ',
    'a\0b',
    'hf://',
    'hf:///name',
    'hf://org/',
    'hf://org//name',
    'hf://org/na me',
    'hf://org/name--x',
    'hf://org/..',
    'hf://.org/name',
    'hf://org/name.git',
    `hf://org/${'n'.repeat(100)}`,
    'hf://org/name@',
    'hf://org/name@v1/../x',
    'hf://org/name@../../etc',
    'hf://org/name@a%2F..%2Fb',
    'hf://org/name@%zz',
    'hf://org/name@a%00b',
    'hf://org/name@.hidden',
    'hf://org/name/x@v1',
    'hf://org/name/..',
    'hf://org/name/a\\b',
    'hf://gpt2@v1/folder',
    'file://host/share',
  ])('refuses %j', (text) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({ code: 'source.invalid-reference' }),
    );
  });

  it('reads what formatHubReference writes', () => {
    const word = fc.stringMatching(/^[a-z0-9_]{1,12}$/);
    const reference = fc.record({
      repo: fc.tuple(word, word).map((parts) => parts.join('/')),
      revision: fc.array(word, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/')),
      folder: fc.array(word, { maxLength: 3 }).map((parts) => parts.join('/')),
    });
    fc.assert(
      fc.property(reference, (value) => {
        expect(parse(formatHubReference(value))).toEqual({ kind: 'hub', ...value });
      }),
    );
  });
});
