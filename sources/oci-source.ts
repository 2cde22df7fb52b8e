import { WeldlineError } from '../engine/errors.ts';
import { type Descriptor, type Manifest, pathOfLayer } from '../remote/oci/manifest.ts';
import { getManifest } from '../remote/oci/manifests.ts';
import { parseOciUri } from '../remote/oci/oci-place.ts';
import { type RegistryClient, registryClient } from '../remote/oci/registry-client.ts';
import { PATIENCE, type Patience } from '../remote/patience.ts';
import { codeOfHttp } from './http-probe.ts';
import { isPlainPath } from './hub-path.ts';
import { openOciFile } from './oci-file.ts';
import type { RemoteFile, RemoteModel, RemoteSource } from './remote-source.ts';

/** The largest models have some hundred shards. */
const LAYERS_MAX = 20_000;
/** What oras says of directories, which it packs. */
const UNPACK = 'io.deis.oras.content.unpack';
/** Layers of ModelPack that hold files in an archive. */
const PACKED = /^application\/vnd\.(cncf|cnai)\.model\..*\.tar(\+\w+)?$/;

/**
 * Models in OCI registries, as weldline, modctl (`--raw`) and oras put them there: a layer for each
 * file. Everything is addressed by digest; a tag is looked up once, when the model is pinned.
 *
 * Plain HTTP is spoken with registries on this machine only.
 *
 * @param dockerConfig directory of Docker's `config.json`, which has the credentials
 */
export function ociSource(dockerConfig: string, patience: Patience = PATIENCE): RemoteSource {
  // One for each repository, since it remembers the tokens it was given.
  const clients = new Map<string, RegistryClient>();
  const open = (uri: string) => {
    const reference = parseOciUri(uri);
    if (reference === undefined) throw invalid(uri, 'is no reference of a registry');
    const key = `${reference.origin}/${reference.repository}`;
    const client =
      clients.get(key) ??
      registryClient({ place: reference, dockerConfig, patience, codeOf: codeOfHttp });
    clients.set(key, client);
    return { client, version: reference.version };
  };
  return {
    kind: 'oci',
    async resolve(uri, signal = new AbortController().signal) {
      const { client, version } = open(uri);
      const stored = await getManifest(client, version, signal);
      if (stored === undefined) throw notFound(uri);
      if (stored.manifest === undefined) {
        throw invalid(uri, 'is no image manifest (an index names several: take the digest of one)');
      }
      const pin = stored.digest.slice('sha256:'.length);
      return { kind: 'oci', uri, pin, files: filesIn(uri, stored.manifest) };
    },
    open: (model: RemoteModel, file: RemoteFile) =>
      openOciFile(open(model.uri).client, model, file),
  };
}

function filesIn(uri: string, { layers }: Manifest): readonly RemoteFile[] {
  if (layers.length > LAYERS_MAX) throw invalid(uri, `has more than ${LAYERS_MAX} layers`);
  const files = new Map<string, RemoteFile>();
  for (const layer of layers) {
    const path = pathOfLayer(layer);
    // Without a path it is no file, for other clients too.
    if (path === '') continue;
    if (isPacked(layer)) {
      const how = 'in an archive, which cannot be read by range: push it again as raw layers';
      throw invalid(uri, `has ${shown(path)} ${how} (modctl build --raw, or weldline)`);
    }
    if (!isPlainPath(path)) {
      throw invalid(uri, `names a file ${shown(path)}, which could end up in another directory`);
    }
    if (files.has(path)) throw invalid(uri, `has two files ${shown(path)}`);
    const { size, digest } = layer;
    files.set(path, { path, size, sha256: digest.slice('sha256:'.length), version: digest });
  }
  if (files.size === 0) throw invalid(uri, 'has no layer with the path of a file: it is no model');
  return [...files.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

function isPacked({ mediaType, annotations }: Descriptor): boolean {
  return PACKED.test(mediaType) || annotations?.[UNPACK] === 'true';
}

function shown(path: string): string {
  return JSON.stringify(path.slice(0, 120));
}

function notFound(uri: string): WeldlineError {
  return new WeldlineError(
    'source.not-found',
    `${uri} does not exist: the registry knows no such repository, tag or digest. Check the name; ` +
      'registries also hide what one may not see.',
  );
}

function invalid(uri: string, problem: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${uri} ${problem}. Name a model such as oci://registry.example.com/models/support:1.0.`,
  );
}
