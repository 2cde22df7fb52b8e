import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cutIntoChunks, outputRange, workOf } from '../../../engine/merge/chunks.ts';
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
      return { ...placed, delta };
    });
    return { file: 'model.safetensors', size: layout.size, tensors };
  });

test('chunks of any size cover every byte of every tensor exactly once, in order', () => {
  fc.assert(
    fc.property(shards, fc.integer({ min: 1, max: 600 }), (shard, chunkBytesMax) => {
      const chunks = cutIntoChunks(shard, chunkBytesMax);
      let position = 0;
      let tensor = -1;
      const ends = new Map<number, number>();
      for (const chunk of chunks) {
        expect(chunk.tensor).toBeGreaterThanOrEqual(tensor);
        tensor = chunk.tensor;
        const planned = shard.tensors[chunk.tensor];
        if (planned === undefined) throw new Error('a chunk of no tensor');
        const { begin, end } = outputRange(shard, chunk);
        expect(begin).toBe(ends.get(chunk.tensor) ?? planned.offset);
        expect(end).toBeGreaterThan(begin);
        expect(begin).toBeGreaterThanOrEqual(position);
        ends.set(chunk.tensor, end);
        position = end;
        // Larger than the limit only if it is a single unit.
        if (chunk.end - chunk.begin > 1) expect(end - begin).toBeLessThanOrEqual(chunkBytesMax);
        if (workOf(planned) === 'delta') {
          const row = planned.byteLength / (planned.shape[0] ?? 1);
          expect((end - begin) % row).toBe(0);
        }
      }
      for (const [index, planned] of shard.tensors.entries()) {
        const end = ends.get(index) ?? planned.offset;
        expect(end).toBe(planned.offset + planned.byteLength);
      }
    }),
    { numRuns: 100 },
  );
});
