import { describe, expect, test } from 'vitest';
import {
  type AdapterLineage,
  checkLineage,
  hubIdentity,
} from '../../../engine/adapters/adapter-lineage.ts';

const COMMIT = 'c'.repeat(40);
const BASE = { repo: 'Acme/Base', revision: 'main', commit: COMMIT };

function lineage(id: string, ...below: string[]): AdapterLineage {
  const named = (name: string) => ({
    model: `hf://acme/${name}`,
    identity: hubIdentity(`acme/${name}`),
  });
  const trainedOn = { name: `acme/${below[0] ?? 'base'}`, revision: undefined };
  return { id, ...named(id), trainedOn, below: below.map(named), isDora: false };
}

const on = (name: string, revision?: string): AdapterLineage => ({
  ...lineage('a'),
  trainedOn: { name, revision },
});

describe('adapters on adapters', () => {
  const [one, two, three] = [lineage('one'), lineage('two', 'one'), lineage('three', 'two', 'one')];

  test.each([
    ['one alone', [one]],
    ['two on one', [one, two]],
    ['three on both', [one, two, three]],
    ['with another between', [one, lineage('other'), two]],
  ])('are merged in their order: %s', (_what, adapters) => {
    expect(checkLineage(BASE, adapters)).toEqual([]);
  });

  test.each([
    ['without what is below', [two], /{id: below-1, model: hf:\/\/acme\/one}\n {2}- {id: two,/],
    ['in the wrong order', [two, one], /"two" was trained on top of another/],
    ['with a hole', [one, three], /below-1.*one}\n.*below-2.*two}\n.*{id: three/],
    ['with the lower two changed', [two, one, three], /"two"/],
  ])('are refused %s, with the lines that would do', (_what, adapters, says) => {
    expect(() => checkLineage(BASE, adapters)).toThrow(
      expect.objectContaining({ code: 'adapter.chain', message: expect.stringMatching(says) }),
    );
  });
});

test.each([
  [{ method: 'linear', weights: [0.5, 1] }, false],
  [{ method: 'ties', parameters: { density: 0.5 } }, false],
  [{ method: 'svd' }, false],
  [{ method: 'linear', weights: [1, 0.5] }, true],
  [{ method: 'cat' }, true],
  [{ method: 'sequential' }, true],
] as const)(
  'what an adapter was trained on must be merged whole: by %j',
  (combination, isRight) => {
    const check = () => checkLineage(BASE, [lineage('one'), lineage('two', 'one')], combination);
    if (isRight) expect(check()).toEqual([]);
    else {
      const message = expect.stringMatching(/"two" was trained on top of all of "one"/);
      expect(check).toThrow(expect.objectContaining({ code: 'adapter.chain', message }));
    }
  },
);

describe('the base that an adapter names', () => {
  test.each([
    ['is the base', on('acme/base')],
    ['is the base at its commit', on('acme/base', COMMIT)],
    ['is the base at its branch', on('acme/base', 'main')],
    ['is a path', on('/models/base', 'v1')],
    ['is no name of a hub', on('base')],
    ['is not told', { ...lineage('a'), trainedOn: undefined }],
  ])('%s: nothing to say', (_what, adapter) => {
    expect(checkLineage(BASE, [adapter])).toEqual([]);
  });

  test('is another: a warning', () => {
    expect(checkLineage(BASE, [on('acme/base-instruct')])).toEqual([
      expect.stringMatching(/"a" says that it was trained on acme\/base-instruct.*onto Acme\/Base/),
    ]);
  });

  test('has a tag whose commit is not known: a warning', () => {
    expect(checkLineage(BASE, [on('acme/base', 'v1')])).toEqual([
      expect.stringMatching(/at v1.*onto main.*base\.revision to v1/),
    ]);
  });

  test('is another commit: refused', () => {
    const commit = 'd'.repeat(40);
    expect(() => checkLineage(BASE, [on('acme/base', commit)])).toThrow(
      expect.objectContaining({
        code: 'adapter.other-base',
        message: expect.stringContaining(`Set base.revision to ${commit}`),
      }),
    );
  });

  test('cannot be compared with a directory', () => {
    expect(checkLineage(undefined, [on('acme/other', 'd'.repeat(40))])).toEqual([]);
  });
});
