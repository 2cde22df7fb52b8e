import { describe, expect, it } from 'vitest';
import { STYLE } from '../../../report/html/style.ts';

/** Variables of a block of the style sheet. */
function coloursOf(block: string): Map<string, string> {
  return new Map(
    [...block.matchAll(/--([a-z0-9-]+): (#[0-9a-f]{6});/g)].map(([, k, v]) => [k!, v!]),
  );
}

const [light = '', dark = ''] = [...STYLE.matchAll(/:root \{([^}]*)\}/g)].map(([, block]) => block);
const SCHEMES = { light: coloursOf(light), dark: coloursOf(dark) };

/** Relative luminance, as WCAG 2 defines it. */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high! + 0.05) / (low! + 0.05);
}

const STEPS = ['cool', 'warm'].flatMap((hue) => [0, 1, 2, 3, 4, 5].map((n) => `${hue}-${n}`));

describe.each(Object.entries(SCHEMES))('colours of the report, %s', (_, colours) => {
  const of = (name: string): string => {
    const colour = colours.get(name);
    if (colour === undefined) throw new Error(`there is no colour ${name}`);
    return colour;
  };

  it.each([
    ...['ground', 'panel'].flatMap((ground) =>
      ['text', 'quiet', 'accent', 'good', 'bad', 'open'].map((text) => [text, ground]),
    ),
    ...['bad', 'text'].map((text) => [text, 'bad-ground']),
    ...['open', 'text'].map((text) => [text, 'open-ground']),
    ...STEPS.map((step) => [`on-${step}`, step]),
  ])('has text of %s on %s that is read', (text, ground) => {
    expect(contrast(of(text!), of(ground!))).toBeGreaterThanOrEqual(4.5);
  });

  it.each(['mark', 'bad', 'strong-rule', 'accent'])('has marks of %s that are seen', (mark) => {
    expect(contrast(of(mark), of('ground'))).toBeGreaterThanOrEqual(3);
  });

  it.each(['cool', 'warm'])('has steps of %s from faint to strong', (hue) => {
    const steps = [0, 1, 2, 3, 4, 5].map((n) => contrast(of(`${hue}-${n}`), of('ground')));
    expect(steps).toEqual(steps.toSorted((one, other) => one - other));
  });
});

it('names no colour that is not defined in both schemes', () => {
  const used = new Set([...STYLE.matchAll(/var\(--([a-z0-9-]+)\)/g)].map(([, name]) => name!));
  for (const name of used) {
    expect([...SCHEMES.light.keys()], name).toContain(name);
    expect([...SCHEMES.dark.keys()], name).toContain(name);
  }
  expect([...SCHEMES.light.keys()].filter((name) => !used.has(name))).toEqual([]);
});
