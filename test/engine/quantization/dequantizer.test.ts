import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { InputFiles } from '../../../engine/merge/input-files.ts';
import { Dequantizer } from '../../../engine/merge/readers/dequantizer.ts';
import type {
  BlockQuantization,
  PlannedTensor,
  TensorReference,
} from '../../../engine/plan/plan.ts';
import { KERNEL_DTYPE } from '../../../engine/safetensors/dtype.ts';
import { createKernel, storeElement } from '../../../kernels/index.ts';
import {
  dequantizeSlowly,
  type QuantizedSpec,
  quantizedTensors,
  quantizeNearest,
} from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import type { TestTensor } from '../../doubles/write-safetensors.ts';

const DTYPES = { bfloat16: 'BF16', float16: 'F16', float32: 'F32' } as const;
const SIZES = { BF16: 2, F16: 2, F32: 4 } as const;

const specs: fc.Arbitrary<QuantizedSpec> = fc.record({
  scheme: fc.constantFrom('nf4', 'fp4'),
  blockSize: fc.constantFrom(32, 64, 256),
  dtype: fc.constantFrom('bfloat16', 'float16', 'float32'),
  shape: fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 90 })),
});
const nestings = fc.constantFrom(undefined, 32, 64);

function planned(tensors: readonly TestTensor[], spec: QuantizedSpec, file: string) {
  const refer = (suffix: string): TensorReference => {
    const name = `w${suffix}`;
    const index = tensors.findIndex((tensor) => tensor.name === name);
    const offset = tensors.slice(0, index).reduce((sum, { data }) => sum + data.length, 0);
    const { dtype, shape, data } = tensors[index]!;
    return {
      ...{ input: 'base', file, offset, byteLength: data.length, dtype: dtype as 'U8' },
      shape: [...shape],
    };
  };
  const quantization: BlockQuantization = {
    scheme: spec.scheme,
    dtype: DTYPES[spec.dtype],
    blockSize: spec.blockSize,
    absmax: refer('.absmax'),
  };
  if (spec.nestedBlockSize !== undefined) {
    quantization.nested = {
      ...{ blockSize: spec.nestedBlockSize, offset: 0.0625 },
      absmax: refer('.nested_absmax'),
      map: refer('.nested_quant_map'),
    };
  }
  const shape = [...spec.shape];
  const from = { ...refer(''), quantization };
  return { ...{ name: 'w', dtype: quantization.dtype, shape, offset: 0, byteLength: 0 }, from };
}

/** What a range of a weight dequantises to, as the kernel's memory then holds it. */
function dequantizeRange(tensor: PlannedTensor, root: string, begin: number, count: number) {
  const size = SIZES[tensor.dtype as 'BF16'];
  const files = new InputFiles({ base: root });
  const spec = { inputBytesMax: (count + 1) * size, outputBytesMax: 0 };
  const kernel = createKernel(
    { kind: 'scalar' },
    { ...spec, factorBytesMax: 1, leftBytesMax: 1, rightBytesMax: 1 },
  );
  try {
    new Dequantizer(kernel, files).dequantize(tensor, begin, count, size);
  } finally {
    files.close();
  }
  return Buffer.from(kernel.input.subarray(size, (count + 1) * size));
}

function rounded(values: readonly number[], dtype: 'BF16' | 'F16' | 'F32'): Buffer {
  const bytes = Buffer.alloc(values.length * SIZES[dtype]);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const [index, value] of values.entries()) {
    storeElement(view, index * SIZES[dtype], KERNEL_DTYPE[dtype], value);
  }
  return bytes;
}

test('any range of any weight is what its elements are one by one', async () => {
  const root = await temporaryDirectory();
  const range = fc.tuple(fc.nat(), fc.nat());
  await fc.assert(
    fc.asyncProperty(specs, nestings, range, fc.nat(), async (plain, nesting, [a, b], seed) => {
      const spec = nesting === undefined ? plain : { ...plain, nestedBlockSize: nesting };
      const tensors = quantizedTensors('w', spec, new Random(seed));
      await writeFile(join(root, 'w'), Buffer.concat(tensors.map(({ data }) => data)));
      const values = dequantizeSlowly(tensors, spec);
      const begin = a % values.length;
      const count = 1 + (b % (values.length - begin));
      const found = dequantizeRange(planned(tensors, spec, 'w'), root, begin, count);
      const expected = rounded(values.slice(begin, begin + count), DTYPES[spec.dtype]);
      expect(found.equals(expected)).toBe(true);
    }),
  );
});

test('what is dequantised, quantised and dequantised again stays what it is', async () => {
  const root = await temporaryDirectory();
  await fc.assert(
    fc.asyncProperty(specs, fc.nat(), async (anySpec, seed) => {
      // Quantising finds the maxima again where nothing was rounded after them.
      const spec = { ...anySpec, dtype: 'float32' } as const;
      const tensors = quantizedTensors('w', spec, new Random(seed));
      const packed = tensors[0]!.data;
      // The largest code in every block: 15 of NF4 and 3 of FP4 are 1.
      const largest = spec.scheme === 'nf4' ? 0xff : 0x33;
      for (let at = 0; at < packed.length; at += spec.blockSize / 2) packed[at] = largest;
      await writeFile(join(root, 'w'), Buffer.concat(tensors.map(({ data }) => data)));
      const tensor = planned(tensors, spec, 'w');
      const count = spec.shape.reduce((product, extent) => product * extent, 1);
      const bytes = dequantizeRange(tensor, root, 0, count);
      const values = Array.from({ length: count }, (_, index) => bytes.readFloatLE(4 * index));

      const { codes, maxima } = quantizeNearest(values, spec);
      const again = tensors.map((each) => ({ ...each, data: each.data.slice() }));
      for (const [index, code] of codes.entries()) {
        const at = Math.floor(index / 2);
        const pair = again[0]!.data[at]!;
        again[0]!.data[at] = index % 2 === 0 ? (code << 4) | (pair & 15) : (pair & 0xf0) | code;
      }
      again[1]!.data.set(new Uint8Array(Float32Array.from(maxima).buffer));
      await writeFile(join(root, 'w'), Buffer.concat(again.map(({ data }) => data)));
      expect(dequantizeRange(tensor, root, 0, count).equals(bytes)).toBe(true);
    }),
  );
});
