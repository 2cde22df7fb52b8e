import { WeldlineError } from '../../engine/errors.ts';
import type { AliasState } from '../publisher.ts';

export function aliasMoved(
  name: string,
  alias: string,
  now: AliasState | undefined,
): WeldlineError {
  return new WeldlineError(
    'publish.alias-moved',
    `Somebody else has moved the alias ${alias} of ${name}: it points at ` +
      `${now?.release ?? 'nothing'} now. Look whether that is as it should be, and run again.`,
  );
}

export function conflict(location: string, what: string): WeldlineError {
  return new WeldlineError(
    'publish.conflict',
    `${location} exists already, ${what}. A version is published once: raise "version" in the recipe, ` +
      'or remove the model.',
  );
}
