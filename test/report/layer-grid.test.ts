import { describe, expect, it } from 'vitest';
import { RETENTION_SCALE, SIZE_SCALE, stepOf } from '../../report/html/pictures/scale.ts';
import { layerGrids, shortNames } from '../../report/layer-grid.ts';

const named = (...names: string[]) => names.map((name) => ({ name }));

describe('a grid of layers and modules', () => {
  it('has layers by number and modules in the order in which data meets them', () => {
    const { grids, others } = layerGrids(
      named(
        ...['model.layers.10.mlp.down_proj.weight', 'model.layers.10.self_attn.q_proj.weight'],
        ...['model.layers.2.self_attn.q_proj.bias', 'model.layers.2.self_attn.q_proj.weight'],
        ...['lm_head.weight', 'model.embed_tokens.weight'],
      ),
    );
    expect(grids).toMatchObject([
      {
        stack: 'model.layers',
        layers: [2, 10],
        modules: ['self_attn.q_proj', 'mlp.down_proj', 'self_attn.q_proj.bias'],
      },
    ]);
    expect(grids[0]?.valuesAt(2, 'self_attn.q_proj')).toEqual([
      { name: 'model.layers.2.self_attn.q_proj.weight' },
    ]);
    expect(grids[0]?.valuesAt(2, 'mlp.down_proj')).toEqual([]);
    expect(others).toEqual(named('lm_head.weight', 'model.embed_tokens.weight'));
  });

  it('puts experts into one cell, and each stack of layers into a grid of its own', () => {
    const { grids } = layerGrids(
      named(
        ...['model.layers.0.mlp.experts.0.up_proj.weight', 'vision.blocks.0.qkv.weight'],
        'model.layers.0.mlp.experts.11.up_proj.weight',
      ),
    );
    expect(grids.map(({ stack, modules }) => [stack, ...modules])).toEqual([
      ['model.layers', 'mlp.experts.*.up_proj'],
      ['vision.blocks', 'qkv'],
    ]);
    expect(grids[0]?.valuesAt(0, 'mlp.experts.*.up_proj')).toHaveLength(2);
  });

  it('shortens names as far as they stay apart', () => {
    expect(shortNames(['self_attn.q_proj', 'mlp.fc', 'cross.fc'])).toEqual([
      ...['q_proj', 'mlp.fc', 'cross.fc'],
    ]);
  });
});

describe('a cell', () => {
  it.each([
    [1, '100', '99 % and more'],
    [1 - 1e-12, '99.9', '99 % and more'],
    [0.98999, '98', '90 to 99 %'],
    [0.8996, '89', '75 to 90 %'],
    [0.57, '57', '50 to 75 %'],
    [0.0312, '3.1', 'under 25 %'],
    [-3, '0', 'under 25 %'],
  ])('says of a retention of %d that it is %s: %s', (value, text, step) => {
    expect(RETENTION_SCALE.toCell(value)).toBe(text);
    expect(stepOf(RETENTION_SCALE, value).label).toBe(step);
  });

  it.each([
    [0, '0', 'under 0.1 %'],
    [0.00001, '<.01', 'under 0.1 %'],
    [0.00996, '1.0', '1 to 3 %'],
    [0.0084, '0.84', '0.3 to 1 %'],
    [1.253, '125', '10 % and more'],
  ])('says of a size of %d that it is %s: %s', (value, text, step) => {
    expect(SIZE_SCALE.toCell(value)).toBe(text);
    expect(stepOf(SIZE_SCALE, value).label).toBe(step);
  });
});
