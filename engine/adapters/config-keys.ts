import { WeldlineError } from '../errors.ts';

/** Whether a key of a configuration says anything: PEFT writes all keys, most of them empty. */
export function isSet(value: unknown): boolean {
  if (value === null || value === undefined || value === false) return false;
  return typeof value !== 'object' || Object.keys(value).length > 0;
}

export function unsupportedFeature(where: string, feature: string, remedy: string): WeldlineError {
  return new WeldlineError('adapter.unsupported-feature', `${where}: ${feature}. ${remedy}`);
}

export function unknownKey(where: string, key: string): WeldlineError {
  return unsupportedFeature(
    where,
    `the key ${JSON.stringify(key.slice(0, 100))} is not known, so its effect on the merge is not either`,
    'If it has none (a note of your trainer), remove it from a copy of the adapter.',
  );
}
