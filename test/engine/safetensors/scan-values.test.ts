import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KERNEL_DTYPE, type MergeDtype } from '../../../engine/safetensors/dtype.ts';
import { scanValues } from '../../../engine/safetensors/scan-values.ts';
import { decodeElements, ELEMENT_BYTES } from '../../../kernels/index.ts';

const DTYPES = ['F32', 'BF16', 'F16'] as const;

function expected(bytes: Uint8Array, dtype: MergeDtype) {
  const values = [...decodeElements(bytes, KERNEL_DTYPE[dtype])];
  return {
    nonFinite: values.some((value) => !Number.isFinite(value)),
    zero: values.every((value) => value === 0),
  };
}

test.each(DTYPES)('%s: every upper half of a value is judged as its decoded value is', (dtype) => {
  const size = ELEMENT_BYTES[KERNEL_DTYPE[dtype]];
  // Two values, so that each is both the lower and the upper half of a word.
  const bytes = new Uint8Array(2 * size);
  for (let upper = 0; upper < 0x10000; upper++) {
    const place = (upper % 2) * size + size - 2;
    bytes.fill(0).set([upper & 0xff, upper >> 8], place);
    if (scanValues(bytes, dtype).nonFinite === expected(bytes, dtype).nonFinite) continue;
    throw new Error(`${dtype} ${upper.toString(16)} is misjudged`);
  }
});

test.each(DTYPES)('%s: values are judged at any alignment and in any number', (dtype) => {
  const size = ELEMENT_BYTES[KERNEL_DTYPE[dtype]];
  // Mostly plain bytes, some that make exponents full, signs alone, or zeros.
  const byte = fc.oneof(fc.constantFrom(0, 0x7f, 0x80, 0xff, 0x7c), fc.nat(255));
  const elements = fc.oneof(
    fc.uint8Array({ minLength: 0, maxLength: 40 }),
    fc.array(byte, { maxLength: 40 }).map((list) => Uint8Array.from(list)),
    fc.array(fc.constantFrom(0, 0x80), { maxLength: 8 }).map((list) => Uint8Array.from(list)),
  );
  fc.assert(
    fc.property(elements, fc.nat(5), (content, shift) => {
      const length = content.length - (content.length % size);
      const bytes = new Uint8Array(shift + length).subarray(shift);
      bytes.set(content.subarray(0, length));
      expect(scanValues(bytes, dtype)).toEqual(expected(bytes, dtype));
    }),
    { numRuns: 2_000 },
  );
});
