import { describe, expect, it } from 'vitest';
import { parseRecipe } from '../../config/recipe.ts';
import { isVersionRule, withVersion } from '../../config/version-rule.ts';

const parse = (version: string) =>
  parseRecipe(
    `name: tone\nversion: ${version}\nbase: { model: ./base }\nadapters:\n  - { id: a, model: ./a }\n`,
    'r.yaml',
  );

describe('withVersion', () => {
  it.each([
    ['1.2.{date}', 'UTC', '1.2.20261127'],
    ['1.2.{date}', 'Europe/Berlin', '1.2.20261128'],
    ['1.2.{date}', 'America/New_York', '1.2.20261127'],
    ['1.{date}.{time}', 'Europe/Berlin', '1.20261128.003005'],
    ['v1.2.0-nightly{date}', 'Asia/Kathmandu', 'v1.2.0-nightly20261128'],
    ['1.2.0', 'UTC', '1.2.0'],
  ])('makes of %s in %s the version %s', (rule, timeZone, version) => {
    const { recipe } = parse(rule);
    const moment = new Date('2026-11-27T23:30:05Z');
    expect(withVersion(recipe, moment, timeZone)).toEqual({ ...recipe, version });
    expect(recipe.version).toBe(rule);
  });

  it('shows the hour after midnight as 00, on the night when clocks are set back too', () => {
    const { recipe } = parse('1.{date}.{time}');
    const at = (moment: string): string =>
      withVersion(recipe, new Date(moment), 'Europe/Berlin').version;
    expect(at('2026-10-24T22:00:00Z')).toBe('1.20261025.000000');
    expect([at('2026-10-25T00:30:00Z'), at('2026-10-25T01:30:00Z')]).toEqual([
      '1.20261025.023000',
      '1.20261025.023000',
    ]);
  });

  it('names a time zone that there is not', () => {
    const { recipe } = parse('1.{date}');
    expect(() => withVersion(recipe, new Date(), 'Mars/Olympus')).toThrow(
      /There is no time zone "Mars\/Olympus"/,
    );
  });
});

describe('a rule in a recipe', () => {
  it.each(['1.2.{day}', '1.2.{Date}', '1.2.{date', '{}.1', '1.2.{date}}'])(
    'with the placeholder of %s is refused, with its place and what there is',
    (version) => {
      expect(() => parse(`"${version}"`)).toThrow(
        /r\.yaml:2:10 version: expected a version .* 1\.2\.\{date\} or 1\.2\.\{date\}\.\{time\}; got/,
      );
    },
  );

  it('is told from a version', () => {
    expect(['1.2.{date}', '1.{time}', '1.2.0'].map(isVersionRule)).toEqual([true, true, false]);
  });

  it('has the digest of the recipe as it is written: all runs of it are of one recipe', () => {
    expect(parse('1.2.{date}').digest).toBe(parse('1.2.{date}').digest);
    expect(parse('1.2.{date}').digest).not.toBe(parse('1.3.{date}').digest);
  });
});
