import fc from 'fast-check';
import { bitsOf, type Dtype, elementCount } from '../../../engine/safetensors/dtype.ts';
import type { TensorSpec } from '../../../engine/safetensors/layout.ts';

const DTYPES: readonly Dtype[] = [
  'BOOL',
  'U8',
  'I8',
  'F8_E5M2',
  'F8_E4M3',
  'F4',
  'F6_E2M3',
  'I16',
  'U16',
  'F16',
  'BF16',
  'I32',
  'F32',
  'C64',
  'F64',
  'I64',
];

/** Names as models have them, and some that trip JavaScript up. */
const name = fc.oneof(
  fc.string({ minLength: 1, maxLength: 40, unit: fc.constantFrom(...'abc.012_é重" ') }),
  fc.constantFrom('__proto__', 'constructor', 'toString', '0', '17', 'length'),
);

const spec: fc.Arbitrary<TensorSpec> = fc
  .record({
    name,
    dtype: fc.constantFrom(...DTYPES),
    shape: fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 4 }),
  })
  .map(({ name: own, dtype, shape }) => {
    // Types of less than a byte are stored packed and must fill whole bytes.
    const isWhole = (elementCount(shape) * bitsOf(dtype)) % 8 === 0;
    return { name: own, dtype, shape: isWhole ? shape : [...shape, 4] };
  });

/** Tensors of one file, with different names, in any order. */
export const tensorSpecs = fc.uniqueArray(spec, {
  selector: (each) => each.name,
  maxLength: 24,
});
