import { expect, test } from 'vitest';
import type { Adapter } from '../../../engine/adapters/adapter.ts';
import { scanAdapter } from '../../../engine/adapters/scan-adapter.ts';
import type { TensorEntry } from '../../../engine/safetensors/header.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';

const MIB = 1024 * 1024;

/** Whole tensors after a header of odd length: the second begins in the middle of a word. */
const TENSORS: readonly TensorEntry[] = [
  { name: 'odd', dtype: 'BF16', shape: [3], offset: 11, byteLength: 6 },
  { name: 'long', dtype: 'F32', shape: [MIB], offset: 17, byteLength: 4 * MIB },
  { name: 'half', dtype: 'F16', shape: [MIB], offset: 17 + 4 * MIB, byteLength: 2 * MIB },
  { name: 'last', dtype: 'F32', shape: [1], offset: 17 + 6 * MIB, byteLength: 4 },
];
const SIZE = 21 + 6 * MIB;

function adapterOf(tensors: readonly TensorEntry[]): Adapter {
  return {
    id: 'a',
    name: 'adapter',
    config: { kind: { type: 'LORA' } } as Adapter['config'],
    pairs: [],
    expertPairs: [],
    changes: [],
    untouched: [],
    replacements: new Map(tensors.map((tensor) => [tensor.name, tensor])),
    copies: [],
    twins: [],
    tokens: new Map(),
    format: 'peft',
    weightsFile: 'weights',
    warnings: [],
  };
}

async function scan(content: Uint8Array): Promise<string[]> {
  const { files } = memoryFiles('adapter', new Map([['weights', content]]));
  return scanAdapter(adapterOf(TENSORS), await files.open('weights'));
}

test('every value is looked at once, wherever a block of the file ends', async () => {
  const content = new Uint8Array(SIZE);
  expect(await scan(content)).toEqual([]);
  for (const { name, dtype, offset, byteLength } of TENSORS) {
    const size = dtype === 'F32' ? 4 : 2;
    const infinity =
      dtype === 'F32' ? [0, 0, 0x80, 0x7f] : dtype === 'F16' ? [0, 0x7c] : [0x80, 0x7f];
    // Its ends, and where blocks of a MiB end, counted from the first tensor.
    const blockEnds = [1, 2, 3, 4, 5, 6].map((count) => 11 + count * MIB - offset);
    const places = [0, byteLength, ...blockEnds]
      .flatMap((place) => [-2, -1, 0, 1, 2].map((step) => Math.floor(place / size) + step))
      .filter((index) => index >= 0 && index < byteLength / size);
    for (const index of new Set(places)) {
      const at = offset + index * size;
      content.set(infinity, at);
      await expect(scan(content), `${name}[${index}]`).rejects.toMatchObject({
        code: 'adapter.non-finite',
        message: expect.stringContaining(`"${name}"`),
      });
      content.fill(0, at, at + size);
    }
  }
});

test('the bits of two neighbours are not taken for one infinite value', async () => {
  const content = new Uint8Array(SIZE);
  // The last half of one tensor and the first of the next make Inf together, not alone.
  content.set([0, 0, 0x80, 0x7f], 15);
  expect(await scan(content)).toEqual([]);
});

test('tensors that are views of the same bytes are each looked at', async () => {
  const content = new Uint8Array(3 * MIB).fill(1);
  const whole = {
    name: 'A',
    dtype: 'F32',
    shape: [3 * (MIB / 4)],
    offset: 0,
    byteLength: 3 * MIB,
  } as const;
  const view = { name: 'B', dtype: 'F32', shape: [2, 1], offset: 0, byteLength: 8 } as const;
  const pair = {
    module: 'm',
    layer: 'linear',
    a: whole,
    b: view,
    rank: 1,
    alpha: 1,
    scaling: 1,
  } as const;
  const { files } = memoryFiles('adapter', new Map([['weights', content]]));
  const warnings = await scanAdapter(
    { ...adapterOf([]), pairs: [pair] },
    await files.open('weights'),
  );
  expect(warnings).toEqual([]);
});
