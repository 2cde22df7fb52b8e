import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseSize } from '../../config/parse-size.ts';

const UNITS: [string, number][] = [
  ['B', 1],
  ['kB', 1e3],
  ['KB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
  ['TB', 1e12],
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['TiB', 2 ** 40],
];

describe('parseSize', () => {
  it.each([
    ['5GB', 5_000_000_000],
    ['500MB', 500_000_000],
    ['1.5GB', 1_500_000_000],
    ['1.1GB', 1_100_000_000],
    ['0.5KiB', 512],
    [' 4 GiB ', 4 * 2 ** 30],
    ['123', 123],
    [123, 123],
  ])('reads %j as %i bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(['', 'GB', '5gb', '5Gb', '5G', '-5GB', '+5GB', '1e9', '5,5GB', '5GBx', '0x10', '.5GB'])(
    'refuses %j as no size',
    (text) => {
      expect(() => parseSize(text)).toThrow(/is not a size: expected a size such as 5GB/);
    },
  );

  it.each([
    '0',
    '0GB',
    0,
    -1,
    1.5,
    '1.5B',
    '0.0001KB',
    '9007199254740992',
    '99999999999TB',
    Number.NaN,
  ])('refuses %j as no whole number of bytes in range', (size) => {
    expect(() => parseSize(size)).toThrow(/must be a whole number of bytes/);
  });

  it('multiplies every whole number by its unit', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8000 }), fc.constantFrom(...UNITS), (n, [unit, by]) => {
        expect(parseSize(`${n}${unit}`)).toBe(n * by);
        expect(parseSize(`${n} ${unit}`)).toBe(n * by);
      }),
    );
  });

  it('gives back every number of bytes it can give', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (bytes) => {
        expect(parseSize(String(bytes))).toBe(bytes);
        expect(parseSize(bytes)).toBe(bytes);
      }),
    );
  });

  it('is exact for decimals', () => {
    fc.assert(
      fc.property(fc.nat(5000), fc.integer({ min: 1, max: 999 }), (whole, thousandths) => {
        const text = `${whole}.${String(thousandths).padStart(3, '0')}GB`;
        expect(parseSize(text)).toBe(whole * 1_000_000_000 + thousandths * 1_000_000);
      }),
    );
  });
});
