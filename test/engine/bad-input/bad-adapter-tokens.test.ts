import { describe, test } from 'vitest';
import { Random } from '../../doubles/random.ts';
import { alter, randomTensor, type TinyModel } from '../../doubles/tiny-model.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const CONFIG = 'adapter_config.json';
const random = new Random(5);

function addRows(adapter: TinyModel, module: string, ...shape: number[]): void {
  const name = `base_model.model.${module}.token_adapter.trainable_tokens_delta`;
  adapter.tensors.push(randomTensor(random, name, 'F32', shape));
}

function trainRows(adapter: TinyModel, indices: unknown, ...shape: number[]): void {
  adapter.config['trainable_token_indices'] = indices;
  addRows(adapter, 'model.embed_tokens', ...shape);
}

function tie(base: TinyModel): void {
  base.config['tie_word_embeddings'] = true;
  alter(base, 'lm_head.weight');
}

const ROWS: readonly BadInput[] = [
  {
    what: 'that its configuration does not speak of',
    code: 'adapter.bad-shape',
    names: ['/adapter', 'model.embed_tokens', 'trainable_token_indices'],
    spoil: ({ adapter }) => addRows(adapter, 'model.embed_tokens', 2, 64),
  },
  {
    what: 'that its configuration gives to another module',
    code: 'adapter.bad-shape',
    names: ['/adapter', 'model.embed_tokens', 'trainable_token_indices'],
    spoil: ({ adapter }) => trainRows(adapter, { lm_head: [1, 2] }, 2, 64),
  },
  {
    what: 'of two modules, of which its configuration names none',
    code: 'adapter.bad-shape',
    names: ['/adapter', 'trainable_token_indices'],
    spoil: ({ adapter }) => {
      trainRows(adapter, [1, 2], 2, 64);
      addRows(adapter, 'lm_head', 2, 64);
    },
  },
  {
    what: 'of another number than its indices',
    code: 'adapter.bad-shape',
    names: ['/adapter', '[3, 64]', '2 trainable_token_indices'],
    spoil: ({ adapter }) => trainRows(adapter, [1, 2], 3, 64),
  },
  {
    what: 'in one dimension',
    code: 'adapter.bad-shape',
    names: ['/adapter', '[64]'],
    spoil: ({ adapter }) => trainRows(adapter, [1], 64),
  },
  {
    what: 'of another width than the base',
    code: 'adapter.shape-mismatch',
    names: ['"a"', 'model.embed_tokens', '[2, 60]', '[100, 64]'],
    spoil: ({ adapter }) => trainRows(adapter, [1, 2], 2, 60),
  },
  {
    what: 'beyond the vocabulary',
    code: 'adapter.shape-mismatch',
    names: ['"a"', 'model.embed_tokens', 'row 100', '[100, 64]'],
    spoil: ({ adapter }) => trainRows(adapter, [1, 100], 2, 64),
  },
  {
    what: 'before the vocabulary',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`, 'trainable_token_indices'],
    spoil: ({ adapter }) => trainRows(adapter, [1, -1], 2, 64),
  },
  {
    what: 'for one token twice',
    code: 'adapter.bad-shape',
    names: ['/adapter', 'model.embed_tokens', 'twice'],
    spoil: ({ adapter }) => trainRows(adapter, [7, 7], 2, 64),
  },
  {
    what: 'that were lost',
    code: 'adapter.target-without-tensors',
    names: ['"a"', 'trainable_token_indices', 'the embedding'],
    spoil: ({ adapter }) => {
      adapter.config['trainable_token_indices'] = [98, 99];
    },
  },
  {
    what: 'of the head, that were lost',
    code: 'adapter.target-without-tensors',
    names: ['"a"', 'trainable_token_indices', 'lm_head'],
    spoil: ({ adapter }) => trainRows(adapter, { embed_tokens: [1, 2], lm_head: [1, 2] }, 2, 64),
  },
  {
    what: 'of the head of a tied pair, that were lost',
    code: 'adapter.target-without-tensors',
    names: ['"a"', 'trainable_token_indices', 'lm_head'],
    spoil: ({ base, adapter }) => {
      tie(base);
      trainRows(adapter, { embed_tokens: [1, 2], lm_head: [3] }, 2, 64);
    },
  },
  {
    what: 'of an embedding that has LoRA',
    code: 'adapter.unsupported-feature',
    names: ['/adapter', 'model.embed_tokens', 'trainable_token_indices', 'LoRA'],
    spoil: ({ adapter }) => {
      trainRows(adapter, [1, 2], 2, 64);
      const stem = 'base_model.model.model.embed_tokens.lora_embedding_';
      adapter.tensors.push(randomTensor(random, `${stem}A`, 'F32', [4, 100]));
      adapter.tensors.push(randomTensor(random, `${stem}B`, 'F32', [64, 4]));
    },
  },
  {
    what: 'of a tied embedding whose head has LoRA',
    code: 'adapter.unsupported-feature',
    names: ['/adapter', '"lm_head"', 'trainable_token_indices', 'LoRA'],
    spoil: ({ base, adapter }) => {
      tie(base);
      trainRows(adapter, [1, 2], 2, 64);
      adapter.tensors.push(
        randomTensor(random, 'base_model.model.lm_head.lora_A.weight', 'F32', [4, 64]),
        randomTensor(random, 'base_model.model.lm_head.lora_B.weight', 'F32', [100, 4]),
      );
    },
  },
  {
    what: 'of a tied embedding whose head was trained in full',
    code: 'adapter.unsupported-feature',
    names: ['/adapter', '"lm_head"', 'trainable_token_indices', 'modules_to_save'],
    spoil: ({ base, adapter }) => {
      tie(base);
      trainRows(adapter, [1, 2], 2, 64);
      adapter.config['modules_to_save'] = ['lm_head'];
      adapter.tensors.push(
        randomTensor(random, 'base_model.model.lm_head.weight', 'F32', [100, 64]),
      );
    },
  },
];

describe('an adapter with rows of tokens', () => {
  test.each(ROWS)('$what', expectRefusal);
});
