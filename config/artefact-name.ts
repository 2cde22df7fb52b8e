import { assert } from '../engine/errors.ts';

/** File systems stop at 255 bytes; the rest is for suffixes such as `.partial-0123abcd`. */
const PART_LENGTH_MAX = 50;
/** As git shortens commits: enough to tell the adapters of one release apart. */
const SHORT_DIGEST_LENGTH = 8;

export interface ArtefactNameParts {
  /** A path or a URI; the last component is used, without revision, tag or digest. */
  base: string;
  version: string;
  adapter: string;
  adapterVersion?: string | undefined;
  /** Hex digest or commit of the adapter, with or without `sha256:`; the default version. */
  adapterDigest: string;
}

/**
 * `merged-<base>-<version>-adapter-<adapter>-<adapter version>`, of `[A-Za-z0-9._-]` only, at most
 * 222 characters: safe as a file name, an OCI tag component and a hub repository name.
 */
export function artefactName(parts: ArtefactNameParts): string {
  const digest = parts.adapterDigest.replace(/^sha256:/, '').slice(0, SHORT_DIGEST_LENGTH);
  const adapterVersion = parts.adapterVersion ?? digest;
  assert(adapterVersion !== '', 'an artefact name needs the adapter version or its digest');
  const base = modelName(parts.base);
  return [
    `merged-${namePart(base)}`,
    namePart(parts.version),
    `adapter-${namePart(parts.adapter)}`,
    namePart(adapterVersion),
  ].join('-');
}

/**
 * Matches the artefact names of releases of one recipe: of one version or of all, by whatever digest
 * its adapters are told apart.
 */
export function artefactNamePattern(
  parts: Pick<ArtefactNameParts, 'base' | 'adapter'> & { readonly version?: string },
): RegExp {
  const { base, adapter, version } = parts;
  const versionPattern =
    version === undefined ? 'v?\\d+(\\.\\d+)*([-.][0-9A-Za-z]+)*' : literally(namePart(version));
  const [before, after] = [modelName(base), adapter].map((text) => literally(namePart(text)));
  return new RegExp(`^merged-${before}-${versionPattern}-adapter-${after}-[A-Za-z0-9._-]+$`);
}

function literally(text: string): string {
  return text.replace(/[.]/g, '\\$&');
}

/** The last component of a path or a hub reference, without `@revision`. */
function modelName(model: string): string {
  const reference = model
    .replace(/^(hf:\/\/[^@]*|oci:\/\/[^@]*)@.*$/, '$1')
    .replace(/^(oci:\/\/.*\/[^:]*):[^/]*$/, '$1');
  return reference.split(/[\\/]+/).findLast((part) => part !== '' && part !== '.') ?? '';
}

function namePart(text: string): string {
  const safe = text.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^-+|-+$/g, '');
  return safe.slice(0, PART_LENGTH_MAX) || 'unnamed';
}
