/** A 16-bit base that is taken as NF4: which of it, and how far that is from what it was. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { PlannedTensor } from '../../../engine/plan/plan.ts';
import { planMerge } from '../../../engine/plan/plan-merge.ts';
import { CODE_TABLES } from '../../../engine/quantization/code-tables.ts';
import { quantizeBlock } from '../../../engine/quantization/nf4.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { packBase } from '../../doubles/packed-base.ts';
import { Random } from '../../doubles/random.ts';
import {
  adapterFiles,
  baseFiles,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { expectRefusal } from '../bad-input/expect-refusal.ts';

const options = { mergeOnto: 'simulated_nf4' } as const;

async function planOf(base: TinyModel, adapter = tinyAdapter()) {
  const inputs = { id: 'a', ...memoryFiles('adapter', adapterFiles(adapter)) };
  return planMerge(memoryFiles('base', baseFiles(base)), [inputs], options);
}

function simulate(block: Float32Array): Float32Array {
  const codes = new Uint8Array(64);
  const maximum = quantizeBlock(block, 0, codes);
  return Float32Array.from(
    codes.subarray(0, block.length),
    (code) => CODE_TABLES.nf4[code]! * maximum,
  );
}

const blocks = fc
  .array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -1000, max: 1000 }), {
    ...{ minLength: 1, maxLength: 64 },
  })
  .map((values) => Float32Array.from(values));

test('what is taken as NF4 is no further from what it was than its neighbour in the table', () => {
  fc.assert(
    fc.property(blocks, (block) => {
      const maximum = Math.max(...block.map(Math.abs));
      // Divided by no less than 1e-38, smaller ones have no neighbour; a golden case has them.
      fc.pre(maximum === 0 || maximum > 1e-30);
      for (const [i, value] of simulate(block).entries()) {
        const nearest = CODE_TABLES.nf4.map((code) => Math.abs(code * maximum - block[i]!));
        const distance = Math.abs(value - block[i]!);
        expect(distance).toBeLessThanOrEqual(Math.min(...nearest) + 1e-6 * maximum);
      }
    }),
  );
});

test('what was taken as NF4 once stays what it is, where its maximum is its largest code', () => {
  fc.assert(
    fc.property(blocks, (block) => {
      // A block's maximum is found again only if it has a positive sign: -1 and 1 are codes.
      const maximum = Math.max(...block.map(Math.abs));
      fc.pre(maximum === 0 || maximum > 1e-30);
      const once = simulate(block);
      expect(simulate(once)).toEqual(once);
    }),
  );
});

describe('a 16-bit base', () => {
  const simulated = ({ from }: PlannedTensor): boolean =>
    from.quantization?.scheme === 'simulated_nf4';

  test.each([false, true])(
    'has all of its linear weights changed, no others (tied: %s)',
    async (tied) => {
      const plan = await planOf(tinyBase({ tied }));
      const tensors = plan.shards.flatMap((shard) => shard.tensors);
      const changed = tensors.filter(simulated).map(({ name }) => name);
      expect(changed).toHaveLength(14);
      expect(changed.every((name) => /_proj\.weight$/.test(name))).toBe(true);
      // Most of them are not what the adapter was trained on.
      expect(tensors.filter(({ deltas }) => deltas !== undefined)).toHaveLength(4);
      expect(tensors.every(({ dtype }) => dtype === 'BF16')).toBe(true);
    },
  );

  test('has what an adapter replaces as the adapter has it', async () => {
    const adapter = tinyAdapter();
    const stem = 'base_model.model.model.layers.0.mlp.down_proj';
    adapter.tensors.push(randomTensor(new Random(3), `${stem}.weight`, 'F32', [64, 128]));
    adapter.config['modules_to_save'] = ['layers.0.mlp.down_proj'];
    const plan = await planOf(tinyBase(), adapter);
    const tensors = plan.shards.flatMap((shard) => shard.tensors);
    const { from } = tensors.find(({ name }) => name === 'model.layers.0.mlp.down_proj.weight')!;
    expect(from).toMatchObject({ input: 'a' });
    expect(from).not.toHaveProperty('quantization');
  });

  test('has a measured distance, of a bounded part of it', async () => {
    const { nf4Distance } = await planOf(tinyBase());
    expect(nf4Distance?.tensors).toBeLessThanOrEqual(12);
    expect(nf4Distance?.values).toBeLessThanOrEqual(12 * 4 * 64 * 64);
    expect(nf4Distance?.relative).toBeGreaterThan(0.05);
  });

  test('that is NF4 already has the distance 0', async () => {
    const base = tinyBase({ dtype: 'F32' });
    for (const { data } of base.tensors) {
      const values = new Float32Array(data.buffer, data.byteOffset, data.length / 4);
      for (let at = 0; at < values.length; at += 64) {
        values.set(simulate(values.subarray(at, at + 64)), at);
      }
    }
    expect((await planOf(base)).nf4Distance?.relative).toBe(0);
  });
});

describe('simulated_nf4 is refused', () => {
  test.each(['mixtral', 'qwen3_moe', 'never_heard_of', 'constructor'])('for a %s', async (type) => {
    await expectRefusal({
      what: type,
      code: 'plan.option-invalid',
      names: [type, 'simulated_nf4', 'dequantized'],
      spoil: ({ base }) => {
        base.config['model_type'] = type;
      },
      options,
    });
  });

  test('for a base that is quantised already', async () => {
    await expectRefusal({
      what: 'gptq',
      code: 'checkpoint.quantized-base',
      names: ['14 weights', 'simulated_nf4', 'dequantized', '16-bit'],
      spoil: ({ base }) => packBase(base, new Random(4), 'gptq'),
      options,
    });
  });

  test('for a Conv1D whose blocks would go from one output to the next', async () => {
    await expectRefusal({
      what: 'Conv1D',
      code: 'plan.option-invalid',
      names: ['c_fc', '96 inputs'],
      spoil: ({ base }) => {
        base.config['model_type'] = 'gpt2';
        const name = 'transformer.h.0.mlp.c_fc.weight';
        base.tensors.push(randomTensor(new Random(6), name, 'BF16', [96, 32]));
      },
      options,
    });
  });

  test('for weights that are not numbers', async () => {
    await expectRefusal({
      what: 'NaN',
      code: 'merge.non-finite',
      names: ['model.layers.0.mlp.up_proj.weight'],
      spoil: ({ base }) => {
        const { data } = base.tensors.find(({ name }) => name.endsWith('0.mlp.up_proj.weight'))!;
        data.set([0xc0, 0x7f], 2 * 70);
      },
      options,
    });
  });
});
