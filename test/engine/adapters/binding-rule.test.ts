import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { chooseRule } from '../../../engine/adapters/binding-rule.ts';
import type { Checkpoint } from '../../../engine/safetensors/checkpoint.ts';

const GOLDEN = new URL('../../golden/formats/renames.json', import.meta.url);

/** By model class, what transformers calls tensors in the running model, and on disk. */
const RENAMES = Object.entries(
  JSON.parse(readFileSync(GOLDEN, 'utf8')) as Record<string, Record<string, string>[]>,
).flatMap(([model, layouts]) =>
  layouts.map((layout, index) => ({ model: `${model} ${index}`, pairs: Object.entries(layout) })),
);

function checkpointOf(names: readonly string[]): Checkpoint {
  const entry = { dtype: 'BF16', shape: [2, 2], offset: 0, byteLength: 8, file: 'f' } as const;
  const tensors = new Map(names.map((name) => [name, { name, ...entry }]));
  return { files: [], tensors, extraFiles: [] };
}

function choose(adapter: readonly string[], onDisk: readonly string[], elsewhere: string[] = []) {
  const checkpoint = checkpointOf(onDisk);
  return chooseRule(adapter, {
    checkpoint,
    isOnDisk: (name) => checkpoint.tensors.has(name),
    elsewhere: new Set(elsewhere),
    format: 'peft',
  });
}

/** All that an adapter can target; only some of the text; only what is no text. */
const PARTS: readonly ((name: string) => boolean)[] = [
  () => true,
  (name) => /(q_proj|query_key_value)\.weight$/.test(name) && !/vision|visual|audio/.test(name),
  (name) => !/language_model|lm_head/.test(name),
  (name) => name === 'lm_head.weight',
];

describe('names of transformers', () => {
  test.each(RENAMES)('$model: of the running model, to those on disk', ({ pairs }) => {
    const onDisk = pairs.map(([, name]) => name);
    for (const isTargeted of PARTS) {
      const targets = pairs.filter(([name]) => isTargeted(name));
      const names = targets.map(([name]) => name);
      const { rule, unbound } = choose(names, onDisk);
      expect(unbound).toEqual([]);
      expect(names.map((name) => rule.toDisk(name))).toEqual(targets.map(([, name]) => name));
    }
  });

  test.each(RENAMES)('$model: of an older version, to those of the newer', ({ pairs }) => {
    const onDisk = pairs.map(([name]) => name);
    for (const isTargeted of PARTS) {
      const targets = pairs.filter(([name]) => isTargeted(name));
      const names = targets.map(([, name]) => name);
      const { rule, unbound } = choose(names, onDisk);
      expect(unbound).toEqual([]);
      expect(names.map((name) => rule.toDisk(name))).toEqual(targets.map(([name]) => name));
    }
  });
});

const Q = 'layers.0.self_attn.q_proj.weight';

test.each([
  ['model.', 'model.language_model.'],
  ['model.', 'language_model.model.'],
  ['model.language_model.', 'model.'],
  ['model.', 'model.text_model.'],
  ['model.text_model.', 'model.'],
  ['model.model.', 'model.'],
  ['language_model.model.', 'model.'],
  ['language_model.model.', 'model.language_model.'],
  ['model.', ''],
  ['', 'model.'],
])('text below %j is found below %j', (ours, theirs) => {
  const { rule } = choose(
    [`${ours}${Q}`, `${ours}norm.weight`],
    [`${theirs}${Q}`, `${theirs}norm.weight`],
  );
  expect(rule.toDisk(`${ours}${Q}`)).toBe(`${theirs}${Q}`);
  expect(rule.name).not.toBe('exact');
});

test('a rule holds for all names or for none', () => {
  const onDisk = [`model.language_model.${Q}`, 'model.norm.weight'];
  const answer = choose([`model.${Q}`, 'model.norm.weight'], onDisk);
  expect(answer).toMatchObject({ rule: { name: 'exact' }, unbound: [`model.${Q}`], fitting: 0 });
});

test('names that are there are not renamed, whatever else would fit', () => {
  const { rule } = choose([`model.${Q}`], [`model.${Q}`, `model.language_model.${Q}`]);
  expect(rule.name).toBe('exact');
});

test('two rules that mean different tensors are ambiguous', () => {
  const answer = choose([`model.${Q}`], [`model.language_model.${Q}`, `language_model.model.${Q}`]);
  expect(answer).toMatchObject({ unbound: [`model.${Q}`], fitting: 2 });
});

test('a head that only the tied embedding has on disk is no obstacle', () => {
  const names = [`model.language_model.${Q}`, 'lm_head.weight'];
  const { rule, unbound } = choose(names, [`language_model.model.${Q}`], ['lm_head.weight']);
  expect(unbound).toEqual([]);
  expect(rule.name).toBe('llava: model.language_model → language_model.model');
});
