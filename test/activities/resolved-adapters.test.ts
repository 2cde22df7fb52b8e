import { expect, test } from 'vitest';
import { nameOfAdapters, type ResolvedAdapter } from '../../activities/resolved-adapters.ts';
import type { Recipe } from '../../config/recipe.ts';

function adapter(id: string, letter: string): ResolvedAdapter {
  const path = `/adapters/${id}`;
  const resolved = { kind: 'directory', path, digest: letter.repeat(64) } as const;
  return { id, model: path, weight: 1, resolved };
}

const [one, two] = [adapter('one', '1'), adapter('two', '2')];

test('how adapters are thinned out is in the name of what comes of it', () => {
  const combinations: Recipe['combination'][] = [
    { method: 'linear' },
    { method: 'ties', parameters: { density: [0.2, 0.2] } },
    { method: 'ties', parameters: { density: [0.2, 0.3] } },
    { method: 'dare_ties', parameters: { density: [0.2, 0.3] } },
    { method: 'dare_ties', parameters: { density: [0.2, 0.3], seed: 1 } },
  ];
  for (const adapters of [[one, two], [one]]) {
    const digests = combinations.map((each) => nameOfAdapters(adapters, each).adapterDigest);
    expect(new Set(digests).size).toBe(combinations.length);
  }
});

test('of adapters that are added up it says what it always said', () => {
  const sums = (['linear', 'cat', 'sequential'] as const).map(
    (method) => nameOfAdapters([one, two], { method }).adapterDigest,
  );
  expect(new Set(sums).size).toBe(1);
  expect(nameOfAdapters([one], { method: 'linear' }).adapterDigest).toBe('1'.repeat(64));
});

test('a method without parameters that is no sum is in the name too', () => {
  const digests = (['linear', 'svd', 'peft_linear', 'peft_svd'] as const).map(
    (method) => nameOfAdapters([one, two], { method }).adapterDigest,
  );
  expect(new Set(digests).size).toBe(digests.length);
});
