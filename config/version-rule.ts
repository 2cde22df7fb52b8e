import { WeldlineError } from '../engine/errors.ts';
import type { Recipe } from './recipe.ts';

/** What a version may leave to the moment of its run. */
const PLACEHOLDER = /\{(date|time)\}/g;

/** Whether a version is a rule, which each run makes another version of. */
export function isVersionRule(version: string): boolean {
  return version.search(PLACEHOLDER) >= 0;
}

/**
 * A recipe with the version of one run: `{date}` becomes YYYYMMDD and `{time}` HHMMSS, as clocks in
 * the time zone show it. Runs of the same moment have the same version.
 *
 * @param timeZone an IANA name such as `Europe/Berlin`
 * @throws WeldlineError `config.invalid` for a time zone that there is not
 */
export function withVersion(recipe: Recipe, moment: Date, timeZone = 'UTC'): Recipe {
  if (!isVersionRule(recipe.version)) return recipe;
  const { date, time } = clockAt(moment, timeZone);
  const version = recipe.version.replace(PLACEHOLDER, (_, name) => (name === 'date' ? date : time));
  return { ...recipe, version };
}

/** What clocks in a time zone show: `{date: 'YYYYMMDD', time: 'HHMMSS'}`. */
export function clockAt(moment: Date, timeZone: string): { date: string; time: string } {
  const digits = { year: 'numeric', month: '2-digit', day: '2-digit' } as const;
  const clock = {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23',
  } as const;
  const parts = formatIn(timeZone, { ...digits, ...clock }).formatToParts(moment);
  const part = (type: string): string => parts.find((each) => each.type === type)?.value ?? '';
  return {
    date: `${part('year').padStart(4, '0')}${part('month')}${part('day')}`,
    time: `${part('hour')}${part('minute')}${part('second')}`,
  };
}

/** @throws WeldlineError `config.invalid` */
export function requireTimeZone(timeZone: string): void {
  formatIn(timeZone, {});
}

function formatIn(timeZone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  try {
    return new Intl.DateTimeFormat('en-u-ca-gregory-nu-latn', { ...options, timeZone });
  } catch (error) {
    throw new WeldlineError(
      'config.invalid',
      `There is no time zone "${timeZone}". Give a name of the IANA database such as Europe/Berlin, ` +
        'America/New_York or UTC.',
      { cause: error },
    );
  }
}
