import { createHash } from 'node:crypto';
import { OCI_DIGEST } from './oci-place.ts';

export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** The path of the file that a layer is, by CNCF ModelPack, and by oras. */
export const FILE_PATH = 'org.cncf.model.filepath';
export const TITLE = 'org.opencontainers.image.title';

export interface Descriptor {
  readonly mediaType: string;
  /** `sha256:<64 hex digits>`. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface Manifest {
  readonly schemaVersion: 2;
  readonly mediaType: typeof MANIFEST_TYPE;
  readonly artifactType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A manifest with the bytes that its digest is of. */
export interface StoredManifest {
  readonly digest: string;
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
}

/** What registries take at most. */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;

/** Empty for layers that are no files. */
export function pathOfLayer({ annotations }: Descriptor): string {
  return annotations?.[FILE_PATH] ?? annotations?.[TITLE] ?? '';
}

export function digestOfBytes(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Reads an image manifest; undefined for anything else, an index of several included. */
export function parseManifest(bytes: Uint8Array): Manifest | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
  if (!isRecord(value)) return undefined;
  const { schemaVersion, mediaType = MANIFEST_TYPE, artifactType, config, layers } = value;
  const { annotations } = value;
  const isManifest =
    schemaVersion === 2 &&
    mediaType === MANIFEST_TYPE &&
    (artifactType === undefined || typeof artifactType === 'string') &&
    isDescriptor(config) &&
    Array.isArray(layers) &&
    layers.every(isDescriptor) &&
    areAnnotations(annotations);
  return isManifest ? ({ ...value, mediaType } as unknown as Manifest) : undefined;
}

function isDescriptor(value: unknown): value is Descriptor {
  if (!isRecord(value)) return false;
  const { mediaType, digest, size, annotations } = value;
  return (
    typeof mediaType === 'string' &&
    typeof digest === 'string' &&
    OCI_DIGEST.test(digest) &&
    Number.isSafeInteger(size) &&
    (size as number) >= 0 &&
    areAnnotations(annotations)
  );
}

function areAnnotations(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  return isRecord(value) && Object.values(value).every((text) => typeof text === 'string');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
