import fc from 'fast-check';
import { expect, test } from 'vitest';
import { planShards, type UnplacedTensor } from '../../../engine/plan/output-shards.ts';
import type { PlannedShard } from '../../../engine/plan/plan.ts';
import { byteLengthOf, layoutFile, type TensorSpec } from '../../../engine/safetensors/layout.ts';
import { tensorSpecs } from '../safetensors/specs-arbitrary.ts';

function unplaced(specs: readonly TensorSpec[]): UnplacedTensor[] {
  return specs.map((spec) => {
    const shape = [...spec.shape];
    const from = {
      input: 'base',
      file: 'model.safetensors',
      offset: 8,
      byteLength: 0,
      ...spec,
      shape,
    };
    return { ...spec, shape, from };
  });
}

const groups = fc
  .record({ specs: tensorSpecs, files: fc.integer({ min: 1, max: 5 }) })
  .map(({ specs, files }) => {
    const tensors = unplaced(specs);
    return Array.from({ length: files }, (_, index) => ({
      file: `model-0000${index + 1}-of-0000${files}.safetensors`,
      tensors: tensors.filter((_tensor, place) => place % files === index),
    }));
  });

function checkShards(shards: readonly PlannedShard[], tensors: readonly UnplacedTensor[]): void {
  const placed = shards.flatMap((shard) => shard.tensors.map((tensor) => tensor.name));
  // Each exactly once.
  expect(placed.sort()).toEqual(tensors.map((tensor) => tensor.name).sort());
  expect(new Set(shards.map((shard) => shard.file)).size).toBe(shards.length);
  for (const shard of shards) {
    // Disjoint, in order, and covering all behind the header.
    let end = layoutFile(shard.tensors).header.length;
    for (const tensor of shard.tensors) {
      expect(tensor.offset).toBe(end);
      expect(tensor.byteLength).toBe(byteLengthOf(tensor));
      end += tensor.byteLength;
    }
    expect(end).toBe(shard.size);
  }
}

test('without a limit the files of the base are kept, but for empty ones', () => {
  fc.assert(
    fc.property(groups, (all) => {
      const shards = planShards(all, undefined);
      const kept = all.filter((group) => group.tensors.length > 0);
      expect(shards.map((shard) => shard.file)).toEqual(kept.map((group) => group.file));
      checkShards(
        shards,
        all.flatMap((group) => group.tensors),
      );
    }),
  );
});

test('with a limit no shard has more, unless a single tensor does', () => {
  fc.assert(
    fc.property(groups, fc.integer({ min: 1, max: 5000 }), (all, shardBytesMax) => {
      const shards = planShards(all, shardBytesMax);
      const tensors = all.flatMap((group) => group.tensors);
      checkShards(shards, tensors);
      const sizes = shards.map((shard) => shard.tensors.reduce((sum, t) => sum + t.byteLength, 0));
      for (const [index, bytes] of sizes.entries()) {
        if ((shards[index]?.tensors.length ?? 0) > 1)
          expect(bytes).toBeLessThanOrEqual(shardBytesMax);
        // The first tensor of the next shard would not have fitted.
        const next = new Set(shards[index + 1]?.tensors.map((tensor) => tensor.name));
        const first = tensors.find((tensor) => next.has(tensor.name));
        if (first !== undefined) {
          expect(bytes + byteLengthOf(first)).toBeGreaterThan(shardBytesMax);
        }
      }
      for (const [index, shard] of shards.entries()) {
        const count = String(shards.length).padStart(5, '0');
        const number = String(index + 1).padStart(5, '0');
        const name = `model-${number}-of-${count}.safetensors`;
        expect(shard.file).toBe(shards.length === 1 ? 'model.safetensors' : name);
      }
    }),
  );
});
