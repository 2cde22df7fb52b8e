import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bitsOf } from '../../../engine/safetensors/dtype.ts';
import { parseHeader } from '../../../engine/safetensors/header.ts';
import { byteLengthOf, layoutFile, type TensorSpec } from '../../../engine/safetensors/layout.ts';
import { tensorSpecs } from './specs-arbitrary.ts';

const byName = (a: TensorSpec, b: TensorSpec): number => (a.name < b.name ? -1 : 1);

function read(specs: readonly TensorSpec[]) {
  const layout = layoutFile(specs);
  const header = parseHeader(layout.header.subarray(8), layout.size, 'file');
  return { layout, header };
}

test('what is laid out is read back: names, dtypes, shapes and places', () => {
  fc.assert(
    fc.property(tensorSpecs, (specs) => {
      const { layout, header } = read(specs);
      const found = header.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
      expect(found.sort(byName)).toEqual([...specs].sort(byName));
      expect([...header.tensors].sort(byName)).toEqual([...layout.tensors].sort(byName));
      expect(header.metadata).toEqual({ format: 'pt' });
    }),
    { numRuns: 500 },
  );
});

test('tensors follow each other without gaps, each on a multiple of its element size', () => {
  fc.assert(
    fc.property(tensorSpecs, (specs) => {
      const { tensors, header, size } = layoutFile(specs);
      expect(header.length % 8).toBe(0);
      let end = header.length;
      for (const tensor of tensors) {
        expect(tensor.offset).toBe(end);
        const bits = bitsOf(tensor.dtype);
        if (bits >= 8) expect((tensor.offset * 8) % bits).toBe(0);
        end += tensor.byteLength;
      }
      expect(end).toBe(size);
      expect(size - header.length).toBe(specs.reduce((sum, spec) => sum + byteLengthOf(spec), 0));
    }),
    { numRuns: 500 },
  );
});

test('the given order is kept where it is aligned', () => {
  const dtypes = fc.constantFrom('BF16' as const, 'F16' as const, 'I16' as const);
  fc.assert(
    fc.property(tensorSpecs, dtypes, (specs, dtype) => {
      const same = specs.map((spec) => ({ ...spec, dtype }));
      expect(layoutFile(same).tensors.map(({ name }) => name)).toEqual(
        same.map(({ name }) => name),
      );
    }),
  );
});

test('the same tensors give the same bytes', () => {
  fc.assert(
    fc.property(tensorSpecs, (specs) => {
      expect(layoutFile(structuredClone(specs)).header).toEqual(layoutFile(specs).header);
    }),
  );
});
