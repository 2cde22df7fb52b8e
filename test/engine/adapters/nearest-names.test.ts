import fc from 'fast-check';
import { expect, test } from 'vitest';
import { editDistance, nearestNames } from '../../../engine/adapters/nearest-names.ts';

test.each([
  ['', '', 0],
  ['abc', '', 3],
  ['kitten', 'sitting', 3],
  ['q_proj', 'k_proj', 1],
])('from %j to %j it takes %d edits', (first, second, edits) => {
  expect(editDistance(first, second)).toBe(edits);
});

test('a distance is symmetric, zero for equals only, and obeys the triangle inequality', () => {
  const word = fc.string({ unit: fc.constantFrom(...'abc.'), maxLength: 10 });
  fc.assert(
    fc.property(word, word, word, (a, b, c) => {
      expect(editDistance(a, b)).toBe(editDistance(b, a));
      expect(editDistance(a, b) === 0).toBe(a === b);
      expect(editDistance(a, c)).toBeLessThanOrEqual(editDistance(a, b) + editDistance(b, c));
    }),
  );
});

test('the same end with another prefix is nearest', () => {
  const candidates = [
    'model.layers.0.self_attn.k_proj.weight',
    'model.language_model.layers.0.self_attn.q_proj.weight',
    'model.language_model.layers.1.self_attn.q_proj.weight',
    'lm_head.weight',
  ];
  expect(nearestNames('model.layers.0.self_attn.q_proj.weight', candidates, 2)).toEqual([
    'model.language_model.layers.0.self_attn.q_proj.weight',
  ]);
});

test('names without end and candidates without number take no time', () => {
  const name = 'a'.repeat(100_000);
  const candidates = Array.from({ length: 50_000 }, (_, index) => `${index}${name.slice(0, 500)}`);
  expect(nearestNames(name, candidates, 3)).toHaveLength(3);
  const alike = candidates.map((candidate) => `${candidate}.weight`);
  expect(nearestNames(`${name}.weight`, alike, 3)).toHaveLength(3);
});
