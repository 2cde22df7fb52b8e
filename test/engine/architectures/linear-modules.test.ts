/** Which weights bitsandbytes quantises, against what transformers says of its own models. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { hasPlainModules, isLinearWeight } from '../../../engine/architectures/linear-modules.ts';

const FILE = fileURLToPath(new URL('../../golden/linear-modules.json', import.meta.url));

type Parameters = Readonly<Record<string, readonly [shape: readonly number[], quantized: boolean]>>;

const models = JSON.parse(await readFile(FILE, 'utf8')) as Readonly<Record<string, Parameters>>;

describe.each(Object.entries(models))('%s', (model, parameters) => {
  test('is known', () => {
    expect(hasPlainModules(model.replace(/-tied$/, ''))).toBe(true);
    // A model of nothing would agree with everything.
    expect(Object.values(parameters).filter(([, quantized]) => quantized).length).toBeGreaterThan(
      3,
    );
  });

  test('has the weights quantised that transformers quantises', () => {
    const ours = Object.entries(parameters).map(([name, [shape]]) => {
      const tensor = { name, shape, dtype: 'BF16', file: '', offset: 0, byteLength: 0 } as const;
      return [name, isLinearWeight(tensor)];
    });
    const theirs = Object.entries(parameters).map(([name, [, quantized]]) => [name, quantized]);
    expect(ours).toEqual(theirs);
  });
});

test.each(['mixtral', 'qwen3_moe', 'falcon', 'llava', undefined, 'constructor'])(
  '%s is not known to be plain',
  (type) => {
    expect(hasPlainModules(type)).toBe(false);
  },
);
