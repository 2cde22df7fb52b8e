/** An adapter that is combined with no other, at weight 1, is merged as if nothing were combined. */
import { expect, test } from 'vitest';
import { planDigest } from '../../../engine/plan/plan.ts';
import { planMerge } from '../../../engine/plan/plan-merge.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { Random } from '../../doubles/random.ts';
import {
  adapterFiles,
  baseFiles,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const PREFIX = 'base_model.model.';
const EMBEDDING = `${PREFIX}model.embed_tokens`;
const random = new Random(14);

function adapterWith(
  config: Readonly<Record<string, unknown>>,
  tensors: Readonly<Record<string, readonly number[]>> = {},
): TinyModel {
  const adapter = tinyAdapter({ targets: ['self_attn.q_proj'] });
  Object.assign(adapter.config, config);
  for (const [name, shape] of Object.entries(tensors)) {
    adapter.tensors.push(randomTensor(random, name, 'F32', shape));
  }
  return adapter;
}

const biases = (name: string) =>
  Object.fromEntries(
    [0, 1].map((n) => [`${PREFIX}model.layers.${n}.self_attn.q_proj.${name}`, [64]]),
  );

const VARIANTS: Readonly<Record<string, TinyModel>> = {
  'rank-stabilised': adapterWith({ use_rslora: true }),
  'of patterns': adapterWith({ alpha_pattern: { 'layers.0.self_attn.q_proj': 64 } }),
  'with lora_bias': adapterWith({ lora_bias: true }, biases('lora_B.bias')),
  'with trained biases': adapterWith({ bias: 'lora_only' }, biases('bias')),
  'with DoRA': doraAdapter({ targets: ['self_attn.q_proj'] }),
  'on an embedding': adapterWith(
    { target_modules: ['q_proj', 'embed_tokens'] },
    { [`${EMBEDDING}.lora_embedding_A`]: [4, 100], [`${EMBEDDING}.lora_embedding_B`]: [64, 4] },
  ),
  'with a saved head': adapterWith(
    { modules_to_save: ['lm_head'] },
    { [`${PREFIX}lm_head.weight`]: [100, 64] },
  ),
  'with trained rows': adapterWith(
    { trainable_token_indices: [98, 99] },
    { [`${EMBEDDING}.token_adapter.trainable_tokens_delta`]: [2, 64] },
  ),
};

test.each(Object.entries(VARIANTS))('an adapter %s', async (_, adapter) => {
  const base = tinyBase();
  for (const layer of [0, 1]) {
    const name = `model.layers.${layer}.self_attn.q_proj.bias`;
    base.tensors.push(randomTensor(random, name, 'BF16', [64]));
  }
  const inputs = memoryFiles('base', baseFiles(base));
  const adapters = [{ id: 'a', ...memoryFiles('adapter', adapterFiles(adapter)) }];
  const plain = planDigest(await planMerge(inputs, adapters, {}));
  for (const combination of [
    { method: 'linear', weights: [1] },
    { method: 'cat' },
    { method: 'sequential' },
    { method: 'dare_ties', weights: [1], parameters: { density: 1 } },
  ] as const) {
    const plan = await planMerge(inputs, adapters, { combination });
    expect(planDigest(plan), combination.method).toBe(plain);
  }
});
