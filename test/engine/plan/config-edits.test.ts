import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ModelConfig } from '../../../engine/architectures/model-config.ts';
import { editConfigText, planConfigEdits } from '../../../engine/plan/config-edits.ts';

/** Number literals that a round trip through a JSON library would write otherwise. */
const LITERALS = [
  '30.0',
  '1e-05',
  '1E+2',
  '-0.0',
  '0.10',
  '10000.0',
  '12345678901234567890',
  '1e400',
];

const key = fc.string({ unit: fc.constantFrom(...'abcdefgh_'), minLength: 1, maxLength: 8 });
const literal = fc.constantFrom(
  ...LITERALS,
  'null',
  'true',
  '"text"',
  '[1.0, 2.50]',
  '{"x": 1e-06}',
);
const members = fc.uniqueArray(fc.tuple(key, literal), {
  selector: ([name]) => name,
  maxLength: 8,
});
const layout = fc.record({
  before: members,
  after: members,
  lineBreak: fc.constantFrom('\n', '\r\n'),
  indent: fc.constantFrom('  ', '    ', '\t', ''),
  end: fc.constantFrom('', '\n'),
});

test('an edit changes the value and no other byte', () => {
  fc.assert(
    fc.property(layout, ({ before, after, lineBreak, indent, end }) => {
      const lines = (value: string): string[] => [
        ...before.map(([name, text]) => `"before_${name}": ${text}`),
        `"tie_word_embeddings": ${value}`,
        ...after.map(([name, text]) => `"after_${name}": ${text}`),
      ];
      const write = (value: string): string =>
        `{${lineBreak}${lines(value)
          .map((line) => indent + line)
          .join(`,${lineBreak}`)}${lineBreak}}${end}`;
      const edits = [{ path: ['tie_word_embeddings'], value: false }];
      expect(editConfigText(write('true'), edits)).toBe(write('false'));
    }),
    { numRuns: 500 },
  );
});

test('a key that is not there is added, and every literal keeps its form', () => {
  fc.assert(
    fc.property(layout, ({ before, lineBreak, indent, end }) => {
      const lines = before.map(([name, text]) => `${indent}"before_${name}": ${text}`);
      const text = `{${lineBreak}${lines.join(`,${lineBreak}`)}${lineBreak}}${end}`;
      const edited = editConfigText(text, [{ path: ['tie_word_embeddings'], value: false }]);
      expect(JSON.parse(edited)['tie_word_embeddings']).toBe(false);
      const set = `${lineBreak}${indent}"tie_word_embeddings": false`;
      const inserted = before.length === 0 ? set.trim() : `,${set}`;
      expect(edited).toContain(inserted);
      expect(edited.replace(inserted, '')).toBe(text);
    }),
    { numRuns: 500 },
  );
});

test('of two equal keys the one that counts is changed', () => {
  const text = '{"tie_word_embeddings": true, "tie_word_embeddings": true}';
  const edited = editConfigText(text, [{ path: ['tie_word_embeddings'], value: false }]);
  expect(edited).toBe('{"tie_word_embeddings": true, "tie_word_embeddings": false}');
});

test('nested and repeated edits', () => {
  const text = '{"dtype": "float16", "text_config": {"rope_theta": 1e6, "dtype": "float16"}}';
  const edits = [
    { path: ['dtype'], value: 'bfloat16' },
    { path: ['text_config', 'dtype'], value: 'bfloat16' },
    { path: ['text_config', 'tie_word_embeddings'], value: false },
  ];
  const once = editConfigText(text, edits);
  expect(once).toContain('"rope_theta": 1e6');
  expect(JSON.parse(once)).toEqual({
    dtype: 'bfloat16',
    text_config: { rope_theta: 1e6, dtype: 'bfloat16', tie_word_embeddings: false },
  });
  expect(editConfigText(once, edits)).toBe(once);
});

function config(text: string, hasTextConfig = false, isQuantized = false): ModelConfig {
  const told = { text, modelType: 'llama', tieWordEmbeddings: true };
  const quantization = isQuantized ? { method: 'gptq' as const, settings: {} } : undefined;
  return { ...told, hasTextConfig, dtype: undefined, quantization };
}

test('the edits are those that the tensors need', () => {
  expect(planConfigEdits(config('{"quantization_config": {}}', false, true), { untied: false }))
    // What is left would have loaders quantise again, or fail.
    .toEqual([{ path: ['quantization_config'], value: null }]);
  expect(planConfigEdits(config('{"torch_dtype": "float16"}'), { untied: false })).toEqual([]);
  expect(
    planConfigEdits(config('{"torch_dtype": "float16"}'), { untied: true, dtype: 'bfloat16' }),
  ).toEqual([
    { path: ['tie_word_embeddings'], value: false },
    { path: ['torch_dtype'], value: 'bfloat16' },
  ]);
  const nested = '{"dtype": "float16", "text_config": {"torch_dtype": "float16"}}';
  expect(planConfigEdits(config(nested, true), { untied: true, dtype: 'float32' })).toEqual([
    { path: ['tie_word_embeddings'], value: false },
    { path: ['text_config', 'tie_word_embeddings'], value: false },
    { path: ['dtype'], value: 'float32' },
    { path: ['text_config', 'torch_dtype'], value: 'float32' },
  ]);
});

test.each([
  ['alone', '{"q": {"a": [1, 2]}}', '{}'],
  ['as the first', '{\n  "q": {"a": 1},\n  "x": 30.0\n}', '{\n  "x": 30.0\n}'],
  ['as the last', '{\n  "x": 30.0,\n  "q": null\n}\n', '{\n  "x": 30.0\n}\n'],
  ['in between', '{"x": 1e6, "q": {}, "y": "q"}', '{"x": 1e6, "y": "q"}'],
  ['more than once', '{"q": 1, "x": 2, "q": 3, "q": 4}', '{"x": 2}'],
  ['not there', '{"x": {"q": 1}}', '{"x": {"q": 1}}'],
])('a value that is %s is removed', (_, text, edited) => {
  expect(editConfigText(text, [{ path: ['q'], value: null }])).toBe(edited);
});

test.each([
  ['{"vocab_size": 100}', false, [['vocab_size']]],
  // A default that was not written out.
  ['{}', false, [['vocab_size']]],
  ['{"text_config": {"vocab_size": 100}}', true, [['text_config', 'vocab_size']]],
  ['{"text_config": {}}', true, [['text_config', 'vocab_size']]],
  ['{"vocab_size": 100, "text_config": {}}', true, [['vocab_size'], ['text_config', 'vocab_size']]],
] as const)('another vocabulary in %s', (text, nested, paths) => {
  const edits = planConfigEdits(config(text, nested), { untied: false, vocabulary: 103 });
  expect(edits).toEqual(paths.map((path) => ({ path, value: 103 })));
  const edited = JSON.parse(editConfigText(text, edits));
  expect((nested ? edited.text_config : edited).vocab_size).toBe(103);
});
