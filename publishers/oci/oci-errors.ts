import { WeldlineError } from '../../engine/errors.ts';
import { nameOfPlace } from '../../remote/oci/oci-place.ts';
import type { RegistryClient } from '../../remote/oci/registry-client.ts';

/** @param what what has the name: "made from other inputs" */
export function conflict(location: string, what: string): WeldlineError {
  return new WeldlineError(
    'publish.conflict',
    `${location} exists already, ${what}. A version is published once: raise "version" in the ` +
      'recipe, or remove what is there.',
  );
}

export function verifyFailed(client: RegistryClient, what: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${nameOfPlace(client.place)}: ${what}. Somebody may have removed it; otherwise check the ` +
      'registry, and run again.',
  );
}

export function notPublished(location: string, remedy: string): WeldlineError {
  return new WeldlineError('publish.not-found', `${location} is not published. ${remedy}`);
}

export function aliased(location: string, alias: string): WeldlineError {
  return new WeldlineError(
    'publish.aliased',
    `The alias ${alias} points at ${location}. Move it first: weldline promote, weldline rollback.`,
  );
}

export function aliasMoved(location: string, now: string | undefined): WeldlineError {
  const where = now === undefined ? 'is not there' : `is at ${now} now`;
  return new WeldlineError(
    'publish.alias-moved',
    `The alias ${location} was moved meanwhile and ${where}. Look again, and move it if that is ` +
      'still right.',
  );
}
