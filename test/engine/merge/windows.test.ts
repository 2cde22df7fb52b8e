import fc from 'fast-check';
import { expect, test } from 'vitest';
import { unitsOf } from '../../../engine/merge/tensor-work.ts';
import {
  outputRange,
  PAGE_BYTES,
  piecesOf,
  unitsPerWindow,
  windowAt,
  windowCount,
} from '../../../engine/merge/windows.ts';
import type { PlannedShard, TensorReference } from '../../../engine/plan/plan.ts';
import { type Dtype, isMergeDtype } from '../../../engine/safetensors/dtype.ts';
import { layoutFile } from '../../../engine/safetensors/layout.ts';
import { tensorSpecs } from '../safetensors/specs-arbitrary.ts';

function referTo(dtype: Dtype, shape: readonly number[]): TensorReference {
  return { input: 'base', file: 'f', offset: 8, byteLength: 0, dtype, shape: [...shape] };
}

/** A shard whose tensors are copied, cast or merged. */
const shards = fc
  .tuple(tensorSpecs, fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 24, maxLength: 24 }))
  .map(([specs, kinds]): PlannedShard => {
    const layout = layoutFile(specs);
    const tensors = layout.tensors.map(({ name, dtype, shape, offset, byteLength }, index) => {
      const kind = isMergeDtype(dtype) ? kinds[index] : 0;
      const from = referTo(kind === 0 ? dtype : 'F32', shape);
      const placed = { name, dtype, shape: [...shape], offset, byteLength, from };
      // An adapter's factors have values, so its targets do.
      if (kind !== 2 || shape.length !== 2 || byteLength === 0) return placed;
      const factor = referTo('F32', shape);
      const delta = {
        adapter: 'a',
        module: name,
        a: factor,
        b: factor,
        rank: 4,
        alpha: 8,
        scaling: 2,
        transposed: false,
      };
      return { ...placed, deltas: [delta] };
    });
    return { file: 'model.safetensors', size: layout.size, tensors };
  });

const cuts = fc.record({
  pages: fc.integer({ min: 1, max: 3 }),
  skippedPages: fc.integer({ min: 0, max: 2 }),
});

test('windows cover the rest of a file exactly once, in order, from page to page', () => {
  fc.assert(
    fc.property(cuts, fc.integer({ min: 1, max: 100_000 }), ({ pages, skippedPages }, size) => {
      const begin = Math.min(size, skippedPages * PAGE_BYTES);
      const cut = { begin, windowBytes: pages * PAGE_BYTES, size };
      let position = begin;
      for (let index = 0; index < windowCount(cut); index++) {
        const window = windowAt(cut, index);
        expect(window.begin).toBe(position);
        expect(window.begin % PAGE_BYTES).toBe(0);
        expect(window.end).toBeGreaterThan(window.begin);
        expect(window.end - window.begin).toBeLessThanOrEqual(cut.windowBytes);
        position = window.end;
      }
      expect(position).toBe(size);
    }),
  );
});

test('the pieces of a window are whole units that cover all of its bytes but the header', () => {
  // Any edges, not only pages: the tensors here are smaller than one.
  const edges = fc.tuple(fc.nat({ max: 3000 }), fc.integer({ min: 1, max: 900 }));
  fc.assert(
    fc.property(shards, edges, (shard, [begin, length]) => {
      const end = Math.min(shard.size, begin + length);
      const pieces = piecesOf(shard, { begin, end });
      const dataBegin = shard.tensors[0]?.offset ?? shard.size;
      let position = Math.max(begin, dataBegin);
      for (const piece of pieces) {
        const tensor = shard.tensors[piece.tensor];
        if (tensor === undefined) throw new Error('a piece of no tensor');
        const units = unitsOf(tensor);
        const range = outputRange(shard, piece);
        expect(range.begin).toBeGreaterThan(position - Math.max(1, units.outputBytes));
        expect(range.begin).toBeLessThanOrEqual(position);
        expect(range.end).toBeGreaterThan(position);
        expect(range.end).toBeLessThan(end + Math.max(1, units.outputBytes));
        expect(piece.end - piece.begin).toBeLessThanOrEqual(unitsPerWindow(units, length));
        expect(piece.begin).toBeGreaterThanOrEqual(0);
        expect(piece.end).toBeLessThanOrEqual(units.count);
        position = Math.min(end, range.end);
      }
      expect(position).toBe(Math.max(end, Math.max(begin, dataBegin)));
    }),
    { numRuns: 500 },
  );
});
