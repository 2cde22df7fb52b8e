import { expect, test } from 'vitest';
import { nameOfAdapters, type ResolvedAdapter } from '../../activities/resolved-adapters.ts';
import type { Recipe } from '../../config/recipe.ts';
import { identityOf } from '../../sources/model-input.ts';

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

test('adapters in two folders of one commit are two adapters', () => {
  const commit = 'c'.repeat(40);
  const inFolder = (folder: string): ResolvedAdapter => ({
    ...{ id: 'tone', model: `hf://org/tone/${folder}`, weight: 1 },
    resolved: { kind: 'hub', repo: 'org/tone', revision: 'main', commit, folder, files: [] },
  });
  const folders = ['', 'checkpoint-500', 'checkpoint-1000'];
  const identities = folders.map((folder) => identityOf(inFolder(folder).resolved));
  expect(new Set(identities).size).toBe(3);
  expect(identities[0]).toBe(commit);
  // Names of artefacts show the first digits, which stay those of the commit.
  const named = nameOfAdapters([inFolder('checkpoint-500')], { method: 'linear' });
  expect(named.adapterDigest.slice(0, 8)).toBe('cccccccc');
});
