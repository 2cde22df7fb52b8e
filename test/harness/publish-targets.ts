/** An S3 server and a registry, each behind a proxy that fails as it is told, and who looks at them. */
import { createHash, generateKeyPairSync } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type LoadedRecipe, parseRecipe } from '../../config/recipe.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import { type FaultyProxy, startFaultyProxy } from './faulty-proxy.ts';
import { MOTO_VARIABLES, startMoto } from './moto-server.ts';
import { type RegistryServer, startRegistry, writeDockerConfig } from './registry-server.ts';
import { type RecipeChanges, type ReleaseSetup, recipeText } from './release-setup.ts';
import { S3Bucket } from './s3-bucket.ts';

const BUCKET = 'models';

/** What releases find where they publish to and sign with. */
export interface PublishTargets {
  readonly s3: FaultyProxy;
  readonly oci: FaultyProxy;
  readonly registry: RegistryServer;
  readonly bucket: S3Bucket;
  readonly keyFile: string;
  readonly dockerConfig: string;
  readonly variables: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

export async function startPublishTargets(directory: string): Promise<PublishTargets> {
  const [moto, registry] = await Promise.all([startMoto(), startRegistry({ hasPassword: true })]);
  const [s3, oci] = await Promise.all([
    startFaultyProxy(moto.url),
    startFaultyProxy(registry.origin),
  ]);
  Object.assign(process.env, MOTO_VARIABLES);
  const dockerConfig = join(directory, 'docker');
  await mkdir(dockerConfig);
  await writeDockerConfig(dockerConfig, [hostOf(oci)]);
  const keyFile = join(directory, 'key.pem');
  await writeSigningKey(keyFile);
  const bucket = await S3Bucket.create(moto.url, BUCKET);
  return {
    ...{ s3, oci, registry, bucket, keyFile, dockerConfig },
    variables: {
      ...MOTO_VARIABLES,
      AWS_ENDPOINT_URL_S3: s3.origin,
      WELDLINE_SIGNING_KEY: keyFile,
      DOCKER_CONFIG: dockerConfig,
    },
    async close() {
      bucket.close();
      await Promise.all([s3.close(), oci.close()]);
      await Promise.all([moto.stop(), registry.close()]);
      for (const name of Object.keys(MOTO_VARIABLES)) delete process.env[name];
    },
  };
}

/** Writes a new private key and returns its public half, both PEM. */
export async function writeSigningKey(file: string): Promise<string> {
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = keys.privateKey.export({ type: 'pkcs8', format: 'pem' });
  await writeFile(file, pem, { mode: 0o600 });
  return keys.publicKey.export({ type: 'spki', format: 'pem' }).toString();
}

/** Where the targets of one recipe are. */
export interface Places {
  readonly directory: string;
  /** In the bucket, with a slash at its end. */
  readonly prefix: string;
  /** With its registry. */
  readonly repository: string;
}

export function placesOf(targets: PublishTargets, setup: ReleaseSetup, name: string): Places {
  return {
    directory: join(setup.target, name),
    prefix: `${name}/`,
    repository: `${hostOf(targets.oci)}/models/${name}`,
  };
}

/** A signed release to a directory, a bucket and a registry, with an alias at each. */
export function publishingRecipe(
  setup: ReleaseSetup,
  { directory, prefix, repository }: Places,
  changes: RecipeChanges = {},
): LoadedRecipe {
  const aliases = ['latest'];
  const list = [
    { directory: { path: directory }, aliases },
    { s3: { bucket: BUCKET, prefix: prefix.slice(0, -1) }, aliases },
    { oci: { repository, insecure: true }, aliases },
  ];
  const text = recipeText(setup, { adapterVersion: '3', ...changes });
  const publish = `sign: key\npublish: ${JSON.stringify(list)}\n`;
  return parseRecipe(text.replace(/publish: .*\n/, publish), join(setup.directory, 'recipe.yaml'));
}

export type Digests = ReadonlyMap<string, string>;

/** SHA-256 of an artefact's files in a directory; undefined where there is nothing. */
export async function inDirectory(places: Places, name: string): Promise<Digests | undefined> {
  try {
    return digestsOf(await readFiles(join(places.directory, name)));
  } catch {
    return undefined;
  }
}

/** The same of a bucket, whether the artefact is finished or not. */
export async function inBucket(
  { bucket }: PublishTargets,
  { prefix }: Places,
  name: string,
): Promise<Digests> {
  return digestsOf(await bucket.read(`${prefix}${name}/`));
}

/** The same of a registry, by the layers of what has a tag; undefined where the tag is not. */
export async function inRegistry(
  { registry }: PublishTargets,
  { repository }: Places,
  tag: string,
): Promise<Digests | undefined> {
  const path = repository.slice(repository.indexOf('/') + 1);
  const accept = 'application/vnd.oci.image.manifest.v1+json';
  const response = await fetch(`${registry.origin}/v2/${path}/manifests/${tag}`, {
    headers: { accept, authorization: registry.authorization },
  });
  if (response.status === 404) return undefined;
  const { layers } = (await response.json()) as {
    layers: { digest: string; annotations: Record<string, string> }[];
  };
  return new Map(
    layers
      .map(({ digest, annotations }): [string, string] => [
        annotations['org.cncf.model.filepath'] ?? '',
        digest.replace('sha256:', ''),
      ])
      .sort(byName),
  );
}

function digestsOf(files: ReadonlyMap<string, Uint8Array>): Digests {
  const all = [...files].map(([name, bytes]): [string, string] => [
    name,
    createHash('sha256').update(bytes).digest('hex'),
  ]);
  return new Map(all.sort(byName));
}

const byName = ([one]: [string, string], [other]: [string, string]): number =>
  one < other ? -1 : 1;

function hostOf({ origin }: FaultyProxy): string {
  return origin.replace('http://', '');
}
