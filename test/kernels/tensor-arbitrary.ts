/** Elements for property tests: ordinary weights, and every kind of number that rounds oddly. */
import * as fc from 'fast-check';
import type { FloatDtype, MergeSegment } from '../../kernels/index.ts';
import { ELEMENT_BYTES } from '../../kernels/index.ts';
import { storeElement } from '../../kernels/reference.ts';
import type { MergeCase } from './kernel-pair.ts';
import { createRandom, DTYPES } from './kernel-pair.ts';

/** Bits of f32 numbers around every threshold of the conversions; both signs are used. */
const AWKWARD_WORDS = [
  0x00000000, 0x00000001, 0x007fffff, 0x00800000, 0x33000000, 0x33000001, 0x33800000, 0x387fc000,
  0x387fe000, 0x387fefff, 0x387ff000, 0x38800000, 0x3f800000, 0x3f801000, 0x3f803000, 0x3f808000,
  0x3f818000, 0x477fe000, 0x477fefff, 0x477ff000, 0x47800000, 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff,
  0x7f800000, 0x7f800001, 0x7fc00000, 0x7fffffff,
] as const;

/** `plain` keeps to finite weights; `awkward` mixes in the list above; `bits` is anything. */
export type ElementStyle = 'plain' | 'awkward' | 'bits';

export function fillTensor(
  count: number,
  dtype: FloatDtype,
  style: ElementStyle,
  seed: number,
): Uint8Array {
  const random = createRandom(seed);
  const bytes = new Uint8Array(count * ELEMENT_BYTES[dtype]);
  const view = new DataView(bytes.buffer);
  const float = new Float32Array(1);
  const word = new Uint32Array(float.buffer);
  for (let at = 0; at < bytes.length; at += ELEMENT_BYTES[dtype]) {
    const draw = random();
    if (style === 'bits') {
      const bits = (random() * 2 ** 32) >>> 0;
      if (dtype === 'f32') view.setUint32(at, bits, true);
      else view.setUint16(at, bits & 0xffff, true);
    } else if (style === 'awkward' && draw < 0.2) {
      const sign = draw < 0.1 ? 0x80000000 : 0;
      word[0] = (AWKWARD_WORDS[Math.floor(random() * AWKWARD_WORDS.length)]! | sign) >>> 0;
      storeElement(view, at, dtype, float[0]!);
    } else {
      storeElement(view, at, dtype, (random() - 0.5) * 2 ** (4 - Math.floor(random() * 12)));
    }
  }
  return bytes;
}

const style = fc.constantFrom<ElementStyle>('plain', 'plain', 'awkward', 'bits');

const segments: fc.Arbitrary<readonly MergeSegment[]> = fc
  .tuple(
    fc.integer({ min: 1, max: 70 }),
    fc.array(fc.integer({ min: 1, max: 69 }), { maxLength: 3 }),
    fc.infiniteStream(fc.constantFrom(1, 2, 0.1, -1.7320508, 1e-6, 3e4)),
  )
  .map(([rank, cuts, scales]) => {
    const ends = [...new Set(cuts.filter((cut) => cut < rank)), rank].sort((a, b) => a - b);
    return ends.map((end, i) => ({
      rank: end - (ends[i - 1] ?? 0),
      scale: scales.next().value as number,
    }));
  });

/** Cases of any shape up to 21 x 45, of up to four segments and rank 70, in any pair of types and any layout. */
export const mergeCases: fc.Arbitrary<MergeCase> = fc
  .record({
    rows: fc.integer({ min: 1, max: 21 }),
    cols: fc.integer({ min: 1, max: 45 }),
    segments,
    dtypeIn: fc.constantFrom(...DTYPES),
    dtypeOut: fc.constantFrom(...DTYPES),
    factorDtype: fc.constantFrom(...DTYPES),
    layout: fc.constantFrom('linear' as const, 'conv1d' as const),
    weightStyle: style,
    factorStyle: style,
    seed: fc.integer(),
  })
  .map(({ weightStyle, factorStyle, seed, ...shape }) => {
    const { rows, cols, dtypeIn, factorDtype } = shape;
    const rank = shape.segments.reduce((sum, segment) => sum + segment.rank, 0);
    return {
      ...shape,
      rank,
      weights: fillTensor(rows * cols, dtypeIn, weightStyle, seed),
      left: fillTensor(rows * rank, factorDtype, factorStyle, seed + 1),
      right: fillTensor(rank * cols, factorDtype, factorStyle, seed + 2),
    };
  });
