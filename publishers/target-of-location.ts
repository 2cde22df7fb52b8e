import { posix } from 'node:path';
import type { PublishTarget } from '../config/publish-schema.ts';

/** A published artefact by where it is. */
export interface LocatedArtefact {
  readonly target: PublishTarget;
  /** What it is called there: a name, a tag. */
  readonly name: string;
}

/** Conversions have hub repositories of their own, named after them. */
const CONVERSION_OF_REPOSITORY = /-(?:gguf|awq|gptq)(?:-[A-Za-z0-9_.-]*)?$/;

/**
 * The target of which a published artefact's location is: what `Published.location` says, or `pinned`.
 *
 * What a location does not say (the endpoint of a bucket, that a registry speaks plain HTTP) comes
 * from the environment or is the default; a recipe says it.
 *
 * @param location an absolute path, `s3://bucket/prefix/name`, `oci://registry/repository:tag`,
 *   `hf://org/name@tag`
 * @returns undefined for what is no such location
 */
export function targetOfLocation(location: string): LocatedArtefact | undefined {
  const [, scheme, rest = ''] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/.exec(location) ?? [];
  if (scheme === undefined) return ofPath(location);
  if (/[?#\s]/.test(rest)) return undefined;
  if (scheme === 's3') return ofBucket(rest);
  if (scheme === 'oci') return ofRegistry(rest);
  return scheme === 'hf' ? ofHub(rest) : undefined;
}

function ofPath(path: string): LocatedArtefact | undefined {
  const plain = path.replaceAll('\\', '/').replace(/(?<=.)\/+$/, '');
  const name = posix.basename(plain);
  if (!posix.isAbsolute(plain) || name === '') return undefined;
  return { target: { directory: { path: posix.dirname(plain) } }, name };
}

function ofBucket(rest: string): LocatedArtefact | undefined {
  const [bucket = '', ...keys] = rest.replace(/\/+$/, '').split('/');
  const name = keys.pop();
  if (bucket === '' || name === undefined || ['', ...keys].slice(1).includes('')) return undefined;
  const prefix = keys.join('/');
  return { target: { s3: { bucket, ...(prefix && { prefix }) } }, name };
}

function ofRegistry(rest: string): LocatedArtefact | undefined {
  const [, repository, tag] =
    /^([^/@]+(?:\/[^/:@]+)+)(?::([\w][\w.-]*)|@sha256:[0-9a-f]{64})$/.exec(rest) ?? [];
  if (repository === undefined) return undefined;
  return { target: { oci: { repository } }, name: tag ?? rest.slice(repository.length + 1) };
}

function ofHub(rest: string): LocatedArtefact | undefined {
  const [, repo, revision] = /^([^/@]+\/[^/@]+)@([^/@]+)$/.exec(rest) ?? [];
  if (repo === undefined || revision === undefined) return undefined;
  const target = { hub: { repo: repo.replace(CONVERSION_OF_REPOSITORY, '') } };
  try {
    return { target, name: decodeURIComponent(revision) };
  } catch {
    return undefined;
  }
}
