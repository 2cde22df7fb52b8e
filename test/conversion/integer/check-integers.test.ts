/** Reading integers back: sound checkpoints pass, and each way to be wrong is named. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkIntegers } from '../../../conversion/integer/check-integers.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import {
  encodeBfloat16,
  type IntegerScheme,
  quantizeModel,
  type ScaleStep,
  scaleRecord,
} from '../../doubles/integer-checkpoint.ts';
import { writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { alter, baseFiles, type TinyModel, tinyBase } from '../../doubles/tiny-model.ts';

const LAYER = 'model.layers.0';
const GPTQ: IntegerScheme = {
  ...{ kind: 'gptq', bits: 4, groupSize: 32, symmetric: true, ignore: ['lm_head'] },
};
const AWQ: IntegerScheme = { ...GPTQ, kind: 'awq' };

const STEPS: ScaleStep[] = [
  step(
    `${LAYER}.input_layernorm`,
    ['q', 'k', 'v'].map((name) => `${LAYER}.self_attn.${name}_proj`),
    64,
  ),
  step(`${LAYER}.mlp.up_proj`, [`${LAYER}.mlp.down_proj`], 128),
];

function step(from: string, to: string[], width: number): ScaleStep {
  return { from, to, scales: Float32Array.from({ length: width }, (_, i) => 0.5 + (i % 7) / 3) };
}

interface Spoiled {
  readonly scheme?: IntegerScheme;
  readonly base?: TinyModel;
  readonly spoil?: (integers: TinyModel) => void;
}

/** Quantises, spoils and checks. */
async function check({ scheme = GPTQ, base = tinyBase(), spoil }: Spoiled) {
  const directory = await temporaryDirectory();
  const [merged, integers] = [join(directory, 'merged'), join(directory, 'integers')];
  const steps = scheme.kind === 'awq' ? STEPS : [];
  const model = quantizeModel(base, scheme, steps);
  spoil?.(model);
  await writeFiles(merged, baseFiles(base));
  await writeFiles(integers, baseFiles(model));
  const scales = join(directory, 'scales.safetensors');
  await writeFile(scales, scaleRecord(steps));
  return await checkIntegers({
    settings: { ...scheme, calibration: 'unused', samples: 1, sequenceLength: 8 },
    ...{ merged, integers },
    scales: scheme.kind === 'awq' ? scales : undefined,
  });
}

describe('a sound checkpoint', () => {
  test.each<[string, IntegerScheme]>([
    ['of 4 bits', GPTQ],
    ['of 8 bits', { ...GPTQ, bits: 8 }],
    ['with zero points', { ...GPTQ, symmetric: false, groupSize: 16 }],
    ['of 8 bits with zero points', { ...GPTQ, bits: 8, symmetric: false }],
    ['of AWQ', AWQ],
    ['of AWQ with zero points', { ...AWQ, symmetric: false }],
    ['with more modules ignored', { ...AWQ, ignore: ['lm_head', `${LAYER}.self_attn.q_proj`] }],
  ])('%s passes', async (_, scheme) => {
    const { checks, layerErrors = {}, inputsMax } = await check({ scheme });
    const errors = Object.values(layerErrors);
    expect(errors).toHaveLength(15 - scheme.ignore.length);
    expect(checks).toHaveLength(scheme.kind === 'awq' ? 5 : 4);
    expect(inputsMax).toBe(128);
    // Of weights spread over six powers of two, half a step of the largest is a tenth of their norm.
    const [low, high] = scheme.bits === 4 ? [0.04, 0.25] : [0.002, 0.02];
    expect(Math.min(...errors)).toBeGreaterThan(low);
    expect(Math.max(...errors)).toBeLessThan(high);
  });

  test('gives the bits of a weight', async () => {
    const { bitsPerWeight } = await check({});
    expect(bitsPerWeight).toBeGreaterThan(4.5);
    expect(bitsPerWeight).toBeLessThan(16);
  });

  test('with a tied head passes, which is a layer of its own where it is quantised', async () => {
    const base = tinyBase({ tied: true });
    expect((await check({ base })).layerErrors).not.toHaveProperty('lm_head');
    const head = { ...base.tensors[0]!, name: 'lm_head.weight' };
    const scheme = { ...GPTQ, ignore: [] };
    const untied = quantizeModel({ ...base, tensors: [head] }, scheme).tensors;
    const { layerErrors } = await check({
      ...{ base, scheme },
      spoil: (model) => model.tensors.push(...untied),
    });
    expect(layerErrors).toHaveProperty('lm_head');
  });

  test('may leave a tied head out that the merged checkpoint has', async () => {
    const base = tinyBase();
    base.config['tie_word_embeddings'] = true;
    await check({ base, spoil: (model) => alter(model, 'lm_head.weight') });
    const untied = check({ spoil: (model) => alter(model, 'lm_head.weight') });
    await expect(untied).rejects.toThrow('there is no tensor lm_head.weight');
  });

  test('in several files passes', async () => {
    await check({ base: tinyBase({ shards: 3 }) });
  });
});

const Q = `${LAYER}.self_attn.q_proj`;
const NORM = `${LAYER}.input_layernorm.weight`;

/** Changes one stored word or value of a tensor. */
function change(name: string, edit: (bytes: Uint8Array) => void) {
  return (model: TinyModel) => {
    const data = model.tensors.find((tensor) => tensor.name === name)!.data.slice();
    edit(data);
    alter(model, name, { data });
  };
}

function editConfig(edit: (config: Record<string, unknown>) => void) {
  return (model: TinyModel) => {
    model.config = structuredClone(model.config);
    edit(model.config);
  };
}

type Quantization = {
  ignore: string[];
  config_groups: { group_0: { weights: Record<string, unknown> } };
};
const ofConfig = (config: Record<string, unknown>) => config['quantization_config'] as Quantization;

const WRONG: [what: string, message: RegExp, spoiled: Spoiled][] = [
  [
    'a layer that was left out',
    /there is no tensor model\.layers\.0\.self_attn\.q_proj\.weight_packed/,
    {
      spoil: (model) => {
        for (const part of ['packed', 'scale', 'shape']) alter(model, `${Q}.weight_${part}`);
      },
    },
  ],
  [
    'another group size',
    /weight_scale is BF16 \[64, 4\] and not BF16 or F16 or F32 \[64, 2\]/,
    {
      spoil: (model) => {
        const other = quantizeModel(tinyBase(), { ...GPTQ, groupSize: 16 });
        model.tensors.splice(0, Infinity, ...other.tensors);
      },
    },
  ],
  [
    'no zero points',
    /there is no tensor .*\.weight_zero_point/,
    {
      scheme: { ...GPTQ, symmetric: false },
      spoil: (model) => alter(model, `${Q}.weight_zero_point`),
    },
  ],
  [
    'a scale that is not a number',
    /q_proj\.weight_scale has NaN at \[1, 1\]/,
    { spoil: change(`${Q}.weight_scale`, (bytes) => bytes.set([0xff, 0x7f], 6)) },
  ],
  [
    'a scale of 0',
    /q_proj\.weight_scale has 0 at \[0, 0\]/,
    { spoil: change(`${Q}.weight_scale`, (bytes) => bytes.set([0, 0], 0)) },
  ],
  [
    'another shape than its own',
    /q_proj\.weight_shape says \[63, 64\]/,
    { spoil: change(`${Q}.weight_shape`, (bytes) => bytes.set([63], 0)) },
  ],
  [
    'the integers of another layer',
    /q_proj differs from the merged weight by 1\d\d\.\d %/,
    {
      spoil: (model) => {
        const from = (part: string) => `model.layers.1.self_attn.q_proj.weight_${part}`;
        for (const part of ['packed', 'scale']) {
          const { data } = model.tensors.find(({ name }) => name === from(part))!;
          alter(model, `${Q}.weight_${part}`, { data });
        }
      },
    },
  ],
  [
    'an integer of AWQ that is not the nearest',
    /down_proj has the integer of .* at \[0, 0\]/,
    {
      scheme: AWQ,
      spoil: change(`${LAYER}.mlp.down_proj.weight_packed`, (bytes) => {
        bytes[0]! ^= 0x08;
      }),
    },
  ],
  [
    'a norm that AWQ forgot to divide',
    /input_layernorm\.weight has .* where AWQ's scales make it/,
    {
      scheme: AWQ,
      spoil: (model) => {
        const { data } = tinyBase().tensors.find(({ name }) => name === NORM)!;
        alter(model, NORM, { data });
      },
    },
  ],
  [
    'a norm that changed',
    /model\.norm\.weight was not to be changed/,
    { spoil: change('model.norm.weight', (bytes) => bytes.set([bytes[0]! ^ 1], 0)) },
  ],
  [
    'an embedding in float32',
    /embed_tokens\.weight has another dtype or shape/,
    {
      spoil: (model) => {
        const { data } = model.tensors[0]!;
        const values = Float32Array.from(decodeTensor(data, 'BF16'));
        alter(model, 'model.embed_tokens.weight', {
          ...{ dtype: 'F32', data: new Uint8Array(values.buffer) },
        });
      },
    },
  ],
  [
    'a head that was to be ignored',
    /ignores \[\] and not \[lm_head\]/,
    {
      spoil: (model) => {
        const other = quantizeModel(tinyBase(), { ...GPTQ, ignore: [] });
        model.tensors.splice(0, Infinity, ...other.tensors);
        model.config = other.config;
      },
    },
  ],
  [
    'a weight that is still there',
    /q_proj\.weight is still there in 16 bits/,
    {
      spoil: (model) => {
        model.tensors.push(tinyBase().tensors.find(({ name }) => name === `${Q}.weight`)!);
      },
    },
  ],
  [
    'a tensor of nothing',
    /there is a tensor model\.extra, of nothing/,
    {
      spoil: (model) => {
        const data = encodeBfloat16([1]);
        model.tensors.push({ name: 'model.extra', dtype: 'BF16', shape: [1], data });
      },
    },
  ],
  [
    'a configuration without quantisation',
    /no quantization_config/,
    { spoil: editConfig((config) => delete config['quantization_config']) },
  ],
  [
    'a configuration of other bits',
    /"bits":8.* and not .*"bits":4/,
    {
      spoil: editConfig((config) => {
        ofConfig(config).config_groups.group_0.weights['num_bits'] = 8;
      }),
    },
  ],
  [
    'a configuration that forgets what is ignored',
    /ignores \[\] and not \[lm_head\]/,
    {
      spoil: editConfig((config) => {
        ofConfig(config).ignore = [];
      }),
    },
  ],
  [
    'a configuration that says something else of the model',
    /something else than the merged one of model_type/,
    {
      spoil: editConfig((config) => {
        config['model_type'] = 'mistral';
      }),
    },
  ],
];

test.each(WRONG)('%s is found', async (_, message, spoiled) => {
  const failure = { code: 'convert.check-failed', message: expect.stringMatching(message) };
  await expect(check(spoiled)).rejects.toMatchObject(failure);
});
