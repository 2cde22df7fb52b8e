import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { layerOf, spreadIndices, spreadTensors } from '../../../engine/insight/spread-tensors.ts';
import type { PlannedTensor } from '../../../engine/plan/plan.ts';
import { tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { previewTiny } from './preview-tiny.ts';

const { tensors: tiny } = await previewTiny(tinyBase(), [tinyAdapter()]);
const named = (name: string): PlannedTensor => ({ ...tiny[0]!, name });

/** Forty layers of four kinds, and the head. */
const MODEL = [
  ...Array.from({ length: 40 }, (_, layer) =>
    ['q', 'k', 'v', 'o'].map((kind) => named(`layers.${layer}.${kind}.weight`)),
  ).flat(),
  named('lm_head.weight'),
];

describe('tensors that are measured', () => {
  it('are all of them where they are few', () => {
    const chosen = spreadTensors(MODEL, () => 1, { tensorsMax: 161, costMax: 161 });
    expect(chosen).toEqual(MODEL.map((tensor) => ({ tensor, standsFor: 1 })));
  });

  it.each([
    ['by their number', { tensorsMax: 33, costMax: 1e9 }],
    ['by what they cost', { tensorsMax: 1e9, costMax: 66 }],
  ])('are bounded %s, and as many of each kind', (_, limits) => {
    const chosen = spreadTensors(MODEL, () => 2, limits);
    expect(chosen).toHaveLength(33);
    const layers = new Set(chosen.map(({ tensor }) => layerOf(tensor.name)));
    // The head, and eight layers whole.
    expect(layers.size).toBe(9);
    const numbers = [...layers].flatMap((layer) => layer.match(/\d+/g) ?? []).map(Number);
    const gaps = numbers.slice(1).map((number, i) => number - numbers[i]!);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(8);
    expect(chosen.reduce((sum, { standsFor }) => sum + standsFor, 0)).toBeCloseTo(161, 9);
    expect(chosen.at(-1)).toMatchObject({ tensor: { name: 'lm_head.weight' }, standsFor: 1 });
  });

  it('are the others where one would displace them', () => {
    const cost = ({ name }: PlannedTensor): number => (name === 'lm_head.weight' ? 300 : 1);
    const chosen = spreadTensors(MODEL, cost, { tensorsMax: 1e9, costMax: 400 });
    expect(chosen).toHaveLength(160);
  });

  it('are none where each costs too much', () => {
    expect(spreadTensors(MODEL, () => 2, { tensorsMax: 9, costMax: 1 })).toEqual([]);
  });
});

describe('indices that are sampled', () => {
  it('are distinct, ascending, in range, and no gap is over twice the mean', () => {
    const counts = fc.integer({ min: 1, max: 64 });
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 1e6 }), counts, (name, extent, count) => {
        const indices = spreadIndices(name, extent, count);
        expect(indices).toHaveLength(Math.min(extent, count));
        expect(indices.every((index, i) => index > (indices[i - 1] ?? -1))).toBe(true);
        expect(indices.at(-1)).toBeLessThan(extent);
        const gaps = indices.slice(1).map((index, i) => index - indices[i]!);
        expect(Math.max(0, ...gaps)).toBeLessThanOrEqual(2 * Math.ceil(extent / count));
      }),
    );
  });
});

it.each([
  ['model.layers.12.mlp.experts.7.up_proj.weight', 'model.layers.12'],
  ['transformer.h.0.attn.c_attn.weight', 'transformer.h.0'],
  ['model.embed_tokens.weight', 'model.embed_tokens.weight'],
])('the layer of %s is %s', (name, layer) => {
  expect(layerOf(name)).toBe(layer);
});
