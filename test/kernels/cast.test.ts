import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FloatDtype } from '../../kernels/index.ts';
import { ELEMENT_BYTES } from '../../kernels/index.ts';
import {
  bytesOf,
  createRandom,
  DTYPE_PAIRS,
  DTYPES,
  FAST_KINDS,
  halvesOf,
  KERNEL_KINDS,
  newKernel,
  runCast,
  wordsOf,
} from './kernel-pair.ts';
import { fillTensor } from './tensor-arbitrary.ts';

const HALF_DTYPES = [
  { dtype: 'bf16', mantissaBits: 7, exponentMin: -126, nan: 0x7fc0 },
  { dtype: 'f16', mantissaBits: 10, exponentMin: -14, nan: 0x7e00 },
] as const;
type HalfDtype = (typeof HALF_DTYPES)[number];

const everyHalf = Uint16Array.from({ length: 65_536 }, (_, bits) => bits);

const isFiniteHalf = (half: number, { mantissaBits }: HalfDtype): boolean => {
  const exponentMask = 0x7fff & ~((1 << mantissaBits) - 1);
  return (half & exponentMask) !== exponentMask;
};

const isInfinite = (half: number, { mantissaBits }: HalfDtype): boolean =>
  (half & 0x7fff) === (0x7fff & ~((1 << mantissaBits) - 1));

describe.each(KERNEL_KINDS)('every 16-bit number, %s', (kind) => {
  it.each(HALF_DTYPES)('$dtype survives the way to f32 and back', (half) => {
    const widened = runCast(kind, bytesOf(everyHalf), half.dtype, 'f32');
    const narrowed = runCast(kind, widened.bytes, 'f32', half.dtype);
    const expected = everyHalf.map((bits) =>
      isFiniteHalf(bits, half) || isInfinite(bits, half) ? bits : half.nan,
    );
    expect(halvesOf(narrowed.bytes)).toEqual(expected);
    const nonFinite = everyHalf.filter((bits) => !isFiniteHalf(bits, half)).length;
    expect([widened.nonFinite, narrowed.nonFinite]).toEqual([nonFinite, nonFinite]);
  });

  it.each(HALF_DTYPES)('$dtype widens to the value that its fields spell', (half) => {
    const widened = runCast(kind, bytesOf(everyHalf), half.dtype, 'f32');
    const values = new Float32Array(widened.bytes.slice().buffer);
    for (const bits of everyHalf) {
      if (!isFiniteHalf(bits, half)) continue;
      if (!Object.is(values[bits], spelledValue(bits, half))) {
        expect.fail(`${half.dtype} 0x${bits.toString(16)} became ${values[bits]}`);
      }
    }
  });
});

/** The value from sign, exponent and mantissa, in float64 and without any bit trick. */
function spelledValue(bits: number, { mantissaBits, exponentMin }: HalfDtype): number {
  const mantissa = bits % 2 ** mantissaBits;
  const exponent = Math.floor((bits % 32_768) / 2 ** mantissaBits);
  const sign = bits >= 32_768 ? -1 : 1;
  const unit = 2 ** (exponentMin - mantissaBits);
  if (exponent === 0) return sign * mantissa * unit;
  return sign * (2 ** mantissaBits + mantissa) * unit * 2 ** (exponent - 1);
}

/** The nearest value of the format in float64, ties to the even multiple; Inf past its range. */
function roundedInFloat64(value: number, { dtype, mantissaBits, exponentMin }: HalfDtype): number {
  if (!Number.isFinite(value) || value === 0) return value;
  const magnitude = Math.abs(value);
  let exponent = exponentMin;
  while (magnitude >= 2 ** (exponent + 1)) exponent++;
  const step = 2 ** (exponent - mantissaBits);
  const steps = magnitude / step;
  const below = Math.floor(steps);
  const rest = steps - below;
  const isUp = rest > 0.5 || (rest === 0.5 && below % 2 === 1);
  const rounded = (isUp ? below + 1 : below) * step;
  const rangeEnd = dtype === 'f16' ? 2 ** 16 : 2 ** 128;
  return Math.sign(value) * (rounded >= rangeEnd ? Number.POSITIVE_INFINITY : rounded);
}

/** Every neighbour of every 16-bit number and of every midpoint, and random bits besides. */
function roundingWords(half: HalfDtype): Uint32Array {
  const keptShift = half.dtype === 'bf16' ? 16 : 13;
  const widened = wordsOf(runCast('scalar', bytesOf(everyHalf), half.dtype, 'f32').bytes);
  const words: number[] = [];
  for (const word of widened) {
    for (const base of [word, word + 2 ** (keptShift - 1)]) {
      words.push((base - 1) >>> 0, base >>> 0, (base + 1) >>> 0);
    }
  }
  // Multiples of half the smallest f16 subnormal, where the kept bits depend on the exponent.
  const subnormal = new Float32Array(3 * 4096);
  for (let i = 0; i < 4096; i++) subnormal[i] = i * 2 ** -25;
  for (const word of wordsOf(bytesOf(subnormal.subarray(0, 4096)))) {
    words.push((word - 1) >>> 0, word, word + 1);
  }
  const random = createRandom(7);
  for (let i = 0; i < 200_000; i++) words.push((random() * 2 ** 32) >>> 0);
  return Uint32Array.from(words);
}

describe.each(KERNEL_KINDS)('rounding to nearest even, %s', (kind) => {
  it.each(HALF_DTYPES)('$dtype agrees with float64 arithmetic', (half) => {
    const words = roundingWords(half);
    const values = new Float32Array(words.buffer);
    const result = runCast(kind, bytesOf(words), 'f32', half.dtype);
    const halves = halvesOf(result.bytes);
    let nonFinite = 0;
    for (let i = 0; i < words.length; i++) {
      const rounded = roundedInFloat64(values[i]!, half);
      if (!Number.isFinite(rounded)) nonFinite++;
      const isRight = Number.isNaN(rounded)
        ? halves[i] === half.nan
        : isInfinite(halves[i]!, half)
          ? rounded === (halves[i]! >= 32_768 ? -Infinity : Infinity)
          : Object.is(spelledValue(halves[i]!, half), rounded);
      if (!isRight) {
        expect.fail(`f32 0x${words[i]!.toString(16)} became 0x${halves[i]!.toString(16)}`);
      }
    }
    expect(result.nonFinite).toBe(nonFinite);
  });
});

describe.each(FAST_KINDS)('casts of any length and content, %s', (kind) => {
  it.each(DTYPE_PAIRS)('$dtypeIn to $dtypeOut match the reference', ({ dtypeIn, dtypeOut }) => {
    const styles = fc.constantFrom('plain' as const, 'awkward' as const, 'bits' as const);
    const property = fc.property(
      fc.integer({ min: 0, max: 67 }),
      styles,
      fc.integer(),
      (count, style, seed) => {
        const elements = fillTensor(count, dtypeIn, style, seed);
        const result = runCast(kind, elements, dtypeIn, dtypeOut);
        expect(result).toEqual(runCast('scalar', elements, dtypeIn, dtypeOut));
      },
    );
    fc.assert(property, { numRuns: 200 });
  });

  it('between bf16 and f16 rounds once, by way of an exact f32', () => {
    const bf16ToF16 = halvesOf(runCast(kind, bytesOf(everyHalf), 'bf16', 'f16').bytes);
    const widened = runCast(kind, bytesOf(everyHalf), 'bf16', 'f32').bytes;
    expect(bf16ToF16).toEqual(halvesOf(runCast(kind, widened, 'f32', 'f16').bytes));
    expect(bf16ToF16[0x3f80]).toBe(0x3c00);
    expect(bf16ToF16[0x3381]).toBe(0x0001);
  });
});

describe('counting what is not finite', () => {
  it.each(DTYPES)('finds every %s Inf and NaN wherever it lies, and nothing else', (dtype) => {
    for (let count = 0; count < 40; count++) {
      const elements = fillTensor(count, dtype, 'bits', count);
      const counts = KERNEL_KINDS.map((kind) => {
        const kernel = newKernel(kind, {
          inputBytesMax: elements.length + 6,
          outputBytesMax: 0,
          factorBytesMax: 0,
          leftBytesMax: 0,
          rightBytesMax: 0,
        });
        kernel.input.fill(0xff).set(elements, 3);
        return kernel.countNonFinite(count, dtype, 3);
      });
      const widened = runCast('scalar', elements, dtype, 'f32').bytes;
      const values = new Float32Array(widened.buffer);
      const expected = values.filter((value) => !Number.isFinite(value)).length;
      expect(counts).toEqual(KERNEL_KINDS.map(() => expected));
      expect(elements.length).toBe(count * ELEMENT_BYTES[dtype as FloatDtype]);
    }
  });
});
