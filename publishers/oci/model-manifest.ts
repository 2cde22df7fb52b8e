import { basename, extname } from 'node:path';
import { canonicalJson } from '../../engine/canonical-json.ts';
import {
  type Descriptor,
  digestOfBytes,
  FILE_PATH,
  MANIFEST_TYPE,
  type Manifest,
  TITLE,
} from '../../remote/oci/manifest.ts';
import { type Artefact, type ArtefactFile, artefactNameOf } from '../publisher.ts';
import type { ReleaseRecord } from '../release-record.ts';

/** Media types and annotations of CNCF ModelPack (github.com/modelpack/model-spec, docs/spec.md). */
const ARTIFACT_TYPE = 'application/vnd.cncf.model.manifest.v1+json';
const CONFIG_TYPE = 'application/vnd.cncf.model.config.v1+json';
const LAYER_TYPES = {
  weight: 'application/vnd.cncf.model.weight.v1.raw',
  config: 'application/vnd.cncf.model.weight.config.v1.raw',
  doc: 'application/vnd.cncf.model.doc.v1.raw',
  code: 'application/vnd.cncf.model.code.v1.raw',
} as const;
const FILE_METADATA = 'org.cncf.model.file.metadata+json';

/** Which artefact a manifest is of, so that nothing else need be read to know. */
const KEYS = {
  release: 'weldline.release',
  part: 'weldline.part',
  kind: 'weldline.kind',
  manifestDigest: 'weldline.manifest.sha256',
  planDigest: 'weldline.plan.sha256',
  name: 'weldline.name',
  pruned: 'weldline.pruned',
} as const;
const CREATED = 'org.opencontainers.image.created';

const WEIGHTS: ReadonlySet<string> = new Set([
  '.safetensors',
  '.gguf',
  '.bin',
  '.pt',
  '.pth',
  '.npz',
]);
const DOCUMENTS =
  /(^|\/)((README|LICEN[CS]E|NOTICE|USE_POLICY)[^/]*|[^/]+\.(md|pdf|png|jpg|svg|html)|weldline\.json|conversion\.json|release\.json|bom\.cdx\.json|provenance\.intoto\.json|model\.sig)$/i;

export interface ModelDocuments {
  readonly config: Uint8Array;
  readonly manifest: Manifest;
  readonly bytes: Uint8Array;
  readonly digest: string;
}

/** The same artefact has the same documents, whenever and wherever they are made. */
export function modelDocuments(artefact: Artefact): ModelDocuments {
  return withManifest(configOf(artefact), artefact.files.map(layerOf), {
    ...annotationsOf(artefact),
    [KEYS.release]: artefact.release,
    ...(artefact.part !== undefined && { [KEYS.part]: artefact.part }),
    [KEYS.kind]: artefact.description.kind,
    [KEYS.manifestDigest]: artefact.manifestDigest,
    [KEYS.planDigest]: artefact.planDigest,
    [KEYS.name]: artefact.description.name,
  });
}

/**
 * What remains of an artefact when layers are taken out of it.
 * @param config the configuration it had
 */
export function prunedDocuments(
  manifest: Manifest,
  config: Record<string, unknown>,
  layers: readonly Descriptor[],
): ModelDocuments {
  return withManifest(config, layers, { ...manifest.annotations, [KEYS.pruned]: 'true' });
}

function withManifest(
  config: Record<string, unknown>,
  layers: readonly Descriptor[],
  annotations: Readonly<Record<string, string>>,
): ModelDocuments {
  const modelfs = { type: 'layers', diffIds: layers.map(({ digest }) => digest) };
  const configBytes = Buffer.from(canonicalJson({ ...config, modelfs }));
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    artifactType: ARTIFACT_TYPE,
    config: {
      mediaType: CONFIG_TYPE,
      digest: digestOfBytes(configBytes),
      size: configBytes.byteLength,
    },
    layers,
    annotations,
  };
  const bytes = Buffer.from(canonicalJson(manifest));
  return { config: configBytes, manifest, bytes, digest: digestOfBytes(bytes) };
}

/** Which artefact of weldline a manifest is of; undefined for what others put there. */
export function recordOf(
  manifest: Manifest,
): (ReleaseRecord & { readonly isPruned: boolean }) | undefined {
  const annotations = manifest.annotations ?? {};
  const { [KEYS.release]: release, [KEYS.part]: part, [KEYS.kind]: kind } = annotations;
  const { [KEYS.manifestDigest]: manifestDigest, [KEYS.planDigest]: planDigest } = annotations;
  const { [CREATED]: createdAt, [KEYS.name]: name } = annotations;
  if (!release || !manifestDigest || !planDigest || !createdAt) return undefined;
  return {
    ...{ release, manifestDigest, planDigest, createdAt },
    ...(part && { part }),
    ...(kind && { kind: kind as Artefact['description']['kind'] }),
    ...(name && { name }),
    isPruned: annotations[KEYS.pruned] === 'true',
  };
}

function layerOf({ path, size, sha256 }: ArtefactFile): Descriptor {
  // The times of files differ from machine to machine; the digest of the manifest must not.
  const metadata = {
    ...{ name: basename(path), mode: 0o644, uid: 0, gid: 0, size },
    ...{ mtime: '1970-01-01T00:00:00Z', typeflag: '0'.charCodeAt(0) },
  };
  return {
    mediaType: LAYER_TYPES[sortOf(path)],
    digest: `sha256:${sha256}`,
    size,
    annotations: {
      [TITLE]: path,
      [FILE_PATH]: path,
      [FILE_METADATA]: canonicalJson(metadata),
    },
  };
}

/** Adapters are weights too, with a configuration beside them; their paths keep them apart. */
function sortOf(path: string): keyof typeof LAYER_TYPES {
  const extension = extname(path).toLowerCase();
  if (WEIGHTS.has(extension)) return 'weight';
  if (extension === '.py') return 'code';
  return DOCUMENTS.test(path) ? 'doc' : 'config';
}

function configOf({ description, part, ...id }: Artefact): Record<string, unknown> {
  const { kind, labels, license } = description;
  const isGguf = kind === 'gguf' || kind === 'gguf-adapter';
  const quantization = isGguf ? part?.replace(/^gguf-/, '') : kind === 'merged' ? undefined : kind;
  return {
    descriptor: {
      createdAt: description.createdAt,
      name: description.name,
      version: description.version,
      title: artefactNameOf({ release: id.release, ...(part !== undefined && { part }) }),
      ...(isUri(description.base) && { sourceURL: description.base }),
      ...(license !== undefined && { licenses: [license] }),
    },
    config: {
      architecture: labels['architecture'] ?? 'transformer',
      format: isGguf ? 'gguf' : 'safetensors',
      ...(labels['precision'] && { precision: labels['precision'] }),
      ...(quantization && { quantization }),
    },
  };
}

function annotationsOf(artefact: Artefact): Record<string, string> {
  const { description } = artefact;
  return {
    [CREATED]: description.createdAt,
    [TITLE]: artefactNameOf(artefact),
    'org.opencontainers.image.version': description.version,
    ...(isUri(description.base) && { 'org.opencontainers.image.source': description.base }),
    ...(description.license && { 'org.opencontainers.image.licenses': description.license }),
  };
}

/** The base of a merge may be a directory of somebody's machine, which leads nowhere. */
function isUri(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//.test(text);
}
