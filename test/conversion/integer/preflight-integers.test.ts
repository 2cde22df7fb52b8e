/** What is said before the merge of conversions to integers. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { IntegerConversion } from '../../../config/release-quality.ts';
import { ignoreModules, linearModules } from '../../../conversion/integer/integer-modules.ts';
import { preflightIntegers } from '../../../conversion/integer/preflight-integers.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';

const FILE = fileURLToPath(new URL('../../golden/linear-modules.json', import.meta.url));

interface Change {
  readonly settings?: Partial<IntegerConversion>;
  readonly config?: Record<string, unknown>;
  readonly data?: string;
  readonly template?: boolean;
  readonly tensors?: ReadonlyMap<string, readonly number[]>;
}

/** SmolLM2's widths: no multiples of 128. */
const TENSORS = new Map<string, readonly number[]>([
  ['model.embed_tokens.weight', [1000, 576]],
  ['model.layers.0.self_attn.q_proj.weight', [576, 576]],
  ['model.layers.0.mlp.up_proj.weight', [1536, 576]],
  ['model.layers.0.mlp.down_proj.weight', [576, 1536]],
  ['model.layers.0.input_layernorm.weight', [576]],
]);

async function preflight({ settings, config, data, template, tensors = TENSORS }: Change) {
  const directory = await temporaryDirectory();
  const calibration = join(directory, 'data.jsonl');
  await writeFile(calibration, data ?? '{"text": "one"}\n{"text": "two"}\n');
  const tokenizer = template ? { chat_template: '{{ messages }}' } : {};
  await writeFile(join(directory, 'tokenizer_config.json'), JSON.stringify(tokenizer));
  const full: IntegerConversion = {
    ...{ kind: 'gptq', bits: 4, groupSize: 64, symmetric: true, ignore: ['lm_head'] },
    ...{ calibration, samples: 2, sequenceLength: 128, ...settings },
  };
  const step = { kind: full.kind, id: `${full.kind}-w4a16-g${full.groupSize}`, settings: full };
  const facts = { config: { model_type: 'llama', ...config }, directory, tensors };
  return await preflightIntegers([step], facts);
}

test('says nothing of what fits', async () => {
  expect(await preflight({})).toEqual([]);
  expect(await preflight({ settings: { kind: 'awq' } })).toEqual([]);
});

describe('refuses', () => {
  test.each<[what: string, code: string, message: RegExp, change: Change]>([
    [
      'a group size that does not divide the widths, and says which do',
      'convert.bad-group-size',
      /^gptq-w4a16-g128: a group of 128 weights does not divide the width of model\.layers\.0\.self_attn\.q_proj \(576 inputs\), model\.layers\.0\.mlp\.up_proj \(576 inputs\)\. These group sizes divide all widths: 192, 96, 64, 48, 32, 24, 16\.$/,
      { settings: { groupSize: 128 } },
    ],
    [
      'widths that have no group size in common',
      'convert.bad-group-size',
      /put the odd ones on the ignore list/,
      {
        tensors: new Map([
          ['a.weight', [4, 35]],
          ['b.weight', [4, 64]],
        ]),
      },
    ],
    [
      'experts',
      'convert.unsupported-architecture',
      /"qwen3_moe"/,
      { config: { model_type: 'qwen3_moe' } },
    ],
    [
      'a head of two names',
      'convert.unsupported-architecture',
      /"gpt_neox"/,
      { config: { model_type: 'gpt_neox' } },
    ],
    ['Conv1D', 'convert.unsupported-architecture', /"gpt2"/, { config: { model_type: 'gpt2' } }],
    [
      'AWQ where it would break the model',
      'convert.unsupported-architecture',
      /"phi".*Use gptq/,
      { settings: { kind: 'awq' }, config: { model_type: 'phi' } },
    ],
    [
      'a list that ignores everything',
      'convert.bad-ignore',
      /leaves no layer/,
      { settings: { ignore: ['re:.*'] } },
    ],
    [
      'a pattern that is none',
      'convert.bad-ignore',
      /re:\( is no pattern/,
      { settings: { ignore: ['re:('] } },
    ],
    [
      'messages without a chat template',
      'convert.bad-calibration',
      /data\.jsonl:2 has messages, and the model has no chat template/,
      { data: '{"text": "a"}\n{"messages": [{"role": "user", "content": "a"}]}' },
    ],
    ['data that is none', 'convert.bad-calibration', /data\.jsonl:1/, { data: 'garbage' }],
  ])('%s', async (_, code, message, change) => {
    const refusal = { code, message: expect.stringMatching(message) };
    await expect(preflight(change)).rejects.toMatchObject(refusal);
  });
});

describe('warns of', () => {
  test.each<[what: string, message: RegExp, change: Change]>([
    [
      'ignored modules that there are not',
      /^gptq-w4a16-g64: ignore has down_proj, which is no layer/,
      { settings: { ignore: ['lm_head', 'down_proj'] } },
    ],
    ['groups that vLLM does not know', /vLLM has kernels for/, { settings: { groupSize: 16 } }],
    [
      'few samples',
      /data\.jsonl has 2 samples where 256 are asked for/,
      { settings: { samples: 256 } },
    ],
    [
      'samples that are longer than the model can read',
      /the model has 64 positions/,
      { config: { max_position_embeddings: 64 } },
    ],
  ])('%s', async (_, message, change) => {
    expect(await preflight(change)).toEqual([expect.stringMatching(message)]);
  });

  test('what a large model costs without a GPU', async () => {
    const large = { tensors: new Map([['a.weight', [1_000_000, 1 << 20]]]) };
    const warnings = await preflight({ settings: { kind: 'awq', ignore: [] }, ...large });
    expect(warnings[0]).toMatch(/GB of memory are needed/);
    // A machine with a GPU says only that.
    for (const warning of warnings.slice(1)) expect(warning).toMatch(/takes about \d+ hours/);
  });
});

test('messages pass where there is a chat template', async () => {
  const data = '{"messages": [{"role": "user", "content": "a"}]}\n{"text": "b"}\n';
  expect(await preflight({ data, template: true })).toEqual([]);
});

describe('ignore', () => {
  const modules = linearModules(TENSORS);
  const ignored = (...ignore: string[]) =>
    ignoreModules(modules, ignore).ignored.map(({ name }) => name);

  test('a tied head is a layer', () => {
    expect(modules.map(({ name }) => name)).toContain('lm_head');
    expect(ignored('lm_head')).toEqual(['lm_head']);
  });

  test('a name is the whole name, a pattern begins where the name does', () => {
    expect(ignored('down_proj', 're:mlp')).toEqual([]);
    expect(ignored('re:.*mlp')).toHaveLength(2);
    expect(ignored('re:model.layers.0.self_attn|lm_head')).toHaveLength(2);
  });
});

type Parameters = Readonly<Record<string, readonly [shape: readonly number[], linear: boolean]>>;
const models: Readonly<Record<string, Parameters>> = JSON.parse(await readFile(FILE, 'utf8'));
const supported = Object.entries(models).filter(([name]) => !/^gpt(2|_neox)/.test(name));

test.each(supported)('linear layers of %s are those of transformers', (_, parameters) => {
  const tensors = new Map(Object.entries(parameters).map(([name, [shape]]) => [name, shape]));
  const ours = linearModules(tensors).map(({ name }) => `${name}.weight`);
  const theirs = Object.keys(parameters).filter((name) => parameters[name]?.[1]);
  expect(ours.filter((name) => !/lm_head|embed_out/.test(name))).toEqual(theirs);
  expect(ours).toHaveLength(theirs.length + 1);
});
