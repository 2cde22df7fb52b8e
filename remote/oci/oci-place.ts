import { isIPv4 } from 'node:net';

/** A repository of a registry. */
export interface OciPlace {
  /** Host and port, as people write it: `registry.example.com`, `127.0.0.1:5000`. */
  readonly registry: string;
  readonly repository: string;
  /** Where the registry answers: `https://registry.example.com`. */
  readonly origin: string;
}

export interface OciReference extends OciPlace {
  /** A tag, or `sha256:<64 hex digits>`; the digest where both are given. */
  readonly version: string;
}

/** Docker Hub answers under another name than the one it is known by. */
const DOCKER_HUB = { name: 'docker.io', host: 'registry-1.docker.io' };

const REPOSITORY = /^[a-z0-9]+([._-]+[a-z0-9]+)*(\/[a-z0-9]+([._-]+[a-z0-9]+)*)*$/;
const REGISTRY = /^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?$/;
export const OCI_TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
export const OCI_DIGEST = /^sha256:[0-9a-f]{64}$/;
/** Of the specification of distribution. */
const NAME_LENGTH_MAX = 255;

/**
 * @param text `registry.example.com/models/support`
 * @param insecure whether the registry speaks plain HTTP; loopback addresses do unless it is false
 * @returns undefined for what is no repository
 */
export function parsePlace(text: string, insecure?: boolean): OciPlace | undefined {
  const at = text.indexOf('/');
  const registry = text.slice(0, at);
  const repository = text.slice(at + 1);
  if (at < 0 || text.length > NAME_LENGTH_MAX) return undefined;
  if (!REGISTRY.test(registry) || !REPOSITORY.test(repository)) return undefined;
  const scheme = (insecure ?? isLoopback(registry)) ? 'http' : 'https';
  const origin = `${scheme}://${registry === DOCKER_HUB.name ? DOCKER_HUB.host : registry}`;
  return URL.canParse(origin) ? { registry, repository, origin } : undefined;
}

/**
 * @param uri `oci://registry.example.com/models/support:1.0`, `…@sha256:…` or both
 * @returns undefined for what is no reference
 */
export function parseOciUri(uri: string, insecure?: boolean): OciReference | undefined {
  if (!uri.startsWith('oci://')) return undefined;
  const [name = '', digest, ...more] = uri.slice('oci://'.length).split('@');
  if (more.length > 0 || (digest !== undefined && !OCI_DIGEST.test(digest))) return undefined;
  const colon = name.indexOf(':', name.lastIndexOf('/') + 1);
  const tag = colon < 0 ? undefined : name.slice(colon + 1);
  if (tag !== undefined && !OCI_TAG.test(tag)) return undefined;
  const place = parsePlace(colon < 0 ? name : name.slice(0, colon), insecure);
  const version = digest ?? tag;
  return place === undefined || version === undefined ? undefined : { ...place, version };
}

function isLoopback(registry: string): boolean {
  const host = registry.replace(/:\d+$/, '');
  return ['localhost', '[::1]'].includes(host) || (isIPv4(host) && host.startsWith('127.'));
}

export function nameOfPlace({ registry, repository }: OciPlace): string {
  return `oci://${registry}/${repository}`;
}
