import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../engine/canonical-json.ts';

/** The same value with the keys of every object in reverse order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, member]) => [key, reversed(member)]),
  );
}

describe('digestOf', () => {
  it('is sha256 over sorted keys without white space', () => {
    const text = '{"a":[1,"é",null],"b":{"c":true}}';
    const digest = createHash('sha256').update(text).digest('hex');
    expect(digestOf({ b: { c: true }, a: [1, 'é', null] })).toBe(digest);
  });

  it('does not depend on the order of keys', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(digestOf(reversed(value))).toBe(digestOf(value));
      }),
    );
  });

  it('tells different values apart', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
        const isSame = JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
        expect(digestOf(a) === digestOf(b)).toBe(isSame);
      }),
    );
  });

  it('counts the order of lists', () => {
    expect(digestOf([1, 2])).not.toBe(digestOf([2, 1]));
  });

  it('takes an undefined member for an absent one', () => {
    expect(digestOf({ a: 1, b: undefined })).toBe(digestOf({ a: 1 }));
  });
});

/** Entries instead of objects, so that no engine's own key order has a say. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return ['list', value.map(sorted)];
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, member]) => [key, sorted(member)] as const);
  return ['map', entries.sort(([a], [b]) => (a < b ? -1 : 1))];
}
