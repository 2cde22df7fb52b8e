/** What says that an adapter was trained on 4-bit weights, and what is said no more then. */
import { describe, expect, test } from 'vitest';
import { readAdapter } from '../../../engine/adapters/adapter.ts';
import { findFourBitEvidence } from '../../../engine/adapters/four-bit-evidence.ts';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { planMerge } from '../../../engine/plan/plan-merge.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

/** The card that PEFT writes, in short. */
const PEFT_CARD = `---
base_model: org/model
library_name: peft
---
## Training procedure

The following \`bitsandbytes\` quantization config was used during training:
- quant_method: bitsandbytes
- load_in_8bit: False
- load_in_4bit: True
- bnb_4bit_quant_type: nf4
`;

function adapterWith(config: object, card?: string | Uint8Array) {
  const adapter = tinyAdapter();
  Object.assign(adapter.config, config);
  if (card !== undefined) adapter.files['README.md'] = card;
  return memoryFiles('adapter', adapterFiles(adapter));
}

async function evidenceOf(config: object, card?: string | Uint8Array) {
  const { files } = adapterWith(config, card);
  return findFourBitEvidence(await readAdapter('a', files), files);
}

const named = (name: string): object => ({ base_model_name_or_path: name });

test.each([
  'unsloth/Meta-Llama-3.1-8B-bnb-4bit',
  'unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit',
  'mlx-community/Mistral-7B-Instruct-v0.3-4bit',
  'TheBloke/Llama-2-7B-Chat-GPTQ',
  'Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4',
  'Qwen/Qwen2.5-7B-Instruct-AWQ',
  '/home/user/models/llama_nf4',
])('a base named %s', async (name) => {
  const value = `base ${JSON.stringify(name)}`;
  expect(await evidenceOf(named(name))).toEqual({ file: 'adapter/adapter_config.json', value });
});

test.each([
  'meta-llama/Llama-3.1-8B',
  'Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8',
  'org/rawqueen-7b',
  'org/model-14bit',
  'org/habit4bits',
])('no base named %s', async (name) => {
  expect(await evidenceOf(named(name))).toBeUndefined();
});

test("PEFT's model card", async () => {
  expect(await evidenceOf({}, PEFT_CARD)).toEqual({
    ...{ file: 'adapter/README.md', value: '- load_in_4bit: True' },
  });
});

test.each([
  ['a name in the card', '---\nbase_model: unsloth/gemma-2-9b-bnb-4bit\n---\n', 'gemma-2-9b-bnb'],
  ['code in the card', 'BitsAndBytesConfig(\n  load_in_4bit=True,\n)', 'load_in_4bit=True'],
  ['JSON in the card', '{"load_in_4bit": true}', '"load_in_4bit": true'],
])('%s', async (_what, card, value) => {
  expect((await evidenceOf({}, card))?.value).toContain(value);
});

test('the bits of LoftQ', async () => {
  expect(await evidenceOf({ loftq_config: { loftq_bits: 4 } })).toMatchObject({
    value: 'loftq_config, loftq_bits 4',
  });
  expect(await evidenceOf({ loftq_config: {} })).toBeUndefined();
});

test.each([
  ['a card of 8 bits', PEFT_CARD.replace('load_in_4bit: True', 'load_in_4bit: False')],
  ['a card that is no text', new Uint8Array([0xff, 0xfe, 0x00])],
  ['a card too large to be one', PEFT_CARD + ' '.repeat(2 ** 20)],
])('not %s', async (_what, card) => {
  expect(await evidenceOf({}, card)).toBeUndefined();
});

describe('an adapter of 4 bits on a base of 16', () => {
  const plan = async (options: MergeOptions) =>
    planMerge(
      memoryFiles('base', baseFiles(tinyBase())),
      [{ id: 'a', ...adapterWith(named('unsloth/llama-3-8b-bnb-4bit'), PEFT_CARD) }],
      options,
    );

  test('is refused until somebody chooses, with what says so and what the choices are', async () => {
    const refusal = plan({});
    await expect(refusal).rejects.toMatchObject({ code: 'adapter.quantized-training' });
    for (const part of [
      ...['adapter/adapter_config.json', 'unsloth/llama-3-8b-bnb-4bit', '--merge-onto'],
      ...['original', 'simulated_nf4', 'dequantized'],
    ]) {
      await expect(refusal).rejects.toThrow(part);
    }
  });

  test.each(['original', 'simulated_nf4'] as const)('is merged onto %s', async (mergeOnto) => {
    const { options, nf4Distance } = await plan({ mergeOnto });
    expect(options).toEqual({ mergeOnto });
    // Normally distributed weights are 9 % apart from their NF4, any others not far from that.
    expect(nf4Distance?.relative).toBeGreaterThan(0.05);
    expect(nf4Distance?.relative).toBeLessThan(0.15);
  });
});
