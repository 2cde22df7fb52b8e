/** Modules that were trained in full, of which some did not reach the adapter's file. */
import { describe, expect, test } from 'vitest';
import { Random } from '../../doubles/random.ts';
import { randomTensor, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { planFor, tensorOf } from '../adapters/plan-tiny.ts';
import { type BadInput, expectRefusal } from '../bad-input/expect-refusal.ts';

const PREFIX = 'base_model.model.';
const EMBEDDING = 'model.embed_tokens.weight';

describe('modules_to_save that the file lost', () => {
  test.each(
    [
      { module: 'lm_head', weight: 'lm_head.weight', tied: false },
      { module: 'lm_head', weight: 'lm_head.weight', tied: true },
      { module: 'embed_tokens', weight: EMBEDDING, tied: false },
      { module: 'embed_tokens', weight: EMBEDDING, tied: true },
      { module: 'norm', weight: 'model.norm.weight', tied: false },
      { module: 'layers.1.mlp', weight: 'model.layers.1.mlp.gate_proj.weight', tied: false },
    ].map(
      ({ module, weight, tied }): BadInput => ({
        what: `${module} (tied: ${tied})`,
        code: 'adapter.target-without-tensors',
        names: ['modules_to_save', weight],
        spoil: ({ base, adapter }) => {
          Object.assign(base, tinyBase({ tied }));
          adapter.config['modules_to_save'] = [module];
        },
      }),
    ),
  )('$what', expectRefusal);

  test('one side of a tied pair', async () => {
    await expectRefusal({
      what: '',
      code: 'adapter.target-without-tensors',
      names: ['modules_to_save', 'lm_head.weight'],
      spoil: ({ base, adapter }) => {
        Object.assign(base, tinyBase({ tied: true }));
        adapter.config['modules_to_save'] = ['embed_tokens', 'lm_head'];
        adapter.tensors.push(randomTensor(new Random(5), PREFIX + EMBEDDING, 'F32', [100, 64]));
      },
    });
  });
});

test('names that the base has not are no loss', async () => {
  const adapter = tinyAdapter();
  // PEFT adds these for the task of a classifier, whatever the model is.
  adapter.config['modules_to_save'] = ['classifier', 'score', 'd_tokens'];
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, EMBEDDING).from.input).toBe('base');
});
