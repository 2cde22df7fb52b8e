/** What all rounds of a soak share: a hub with the models, a bucket, and what is to come out. */
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, baseFiles } from '../doubles/tiny-model.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { MOTO_VARIABLES, startMoto } from '../harness/moto-server.ts';
import { EXAMPLE, exampleSuite } from '../harness/quality-setup.ts';
import { S3Bucket } from '../harness/s3-bucket.ts';
import { shareWorkflowBundle } from '../harness/workflow-bundle.ts';
import { type HubServer, startHubServer } from '../hub-server/hub-server.ts';
import { TEST_TOOLS } from '../tools/test-tools.ts';

/**
 * `merge`: a merge of four shards, published. `convert`: the example, and what llama.cpp makes of it.
 * `quality`: judged by a suite too, before it is published.
 */
export const SHAPES = ['merge', 'convert', 'quality'] as const;
export type Shape = (typeof SHAPES)[number];

export interface SoakWorld {
  readonly directory: string;
  /** How `weldline` is run. */
  readonly program: readonly [string, ...string[]];
  readonly hub: HubServer;
  readonly s3: FaultyProxy;
  readonly bucket: S3Bucket;
  close(): Promise<void>;
}

const BUCKET = 'models';
/** Of 1.6 MB each, so that a round is short; the work in them is the adapter's rank. */
const HEAVY = { layers: 4, shards: 4, extent: 640, rank: 640 };

/** @param directory empty or absent; all that the soak makes is in it */
export async function startSoakWorld(
  directory: string,
  program: SoakWorld['program'],
): Promise<SoakWorld> {
  const root = join(directory, 'hub');
  const repository = (name: string): string => join(root, 'org', name, 'main');
  const { base, adapter } = heavyModel(HEAVY);
  await writeFiles(repository('heavy-base'), baseFiles(base));
  await writeFiles(repository('heavy-adapter'), adapterFiles(adapter));
  const example = { recursive: true };
  await cp(join(EXAMPLE, 'base'), repository('example-base'), example);
  await cp(join(EXAMPLE, 'adapters/calculator'), repository('example-adapter'), example);
  const hub = await startHubServer({ root });
  const moto = await startMoto();
  const s3 = await startFaultyProxy(moto.url);
  Object.assign(process.env, MOTO_VARIABLES);
  const bucket = await S3Bucket.create(moto.url, BUCKET);
  return {
    ...{ directory, program, hub, s3, bucket },
    async close() {
      bucket.close();
      await Promise.all([s3.close(), hub.close()]);
      await moto.stop();
      for (const name of Object.keys(MOTO_VARIABLES)) delete process.env[name];
    },
  };
}

/** Where one round works; nothing of it is shared with another. */
export interface RoundPlace {
  readonly shape: Shape;
  readonly directory: string;
  readonly home: string;
  /** Of a server that is no part of it: on another disk, when its own is full. */
  readonly serverHome: string;
  readonly recipe: string;
  /** Where the recipe publishes, and below which prefix of the bucket. */
  readonly target: string;
  readonly prefix: string;
  readonly variables: Readonly<Record<string, string>>;
}

/**
 * @param name of the round; the release is named alike in all of them
 * @param prepare what is to be done to its directory before anything is in it
 */
export async function makePlace(
  world: SoakWorld,
  shape: Shape,
  name: string,
  prepare?: (directory: string) => void,
): Promise<RoundPlace> {
  const directory = join(world.directory, name);
  await mkdir(directory, { recursive: true });
  prepare?.(directory);
  const home = join(directory, 'home');
  await mkdir(home, { recursive: true });
  await shareWorkflowBundle(home);
  const recipe = join(directory, 'recipe.yaml');
  const target = join(directory, 'releases');
  await writeFile(recipe, recipeText(shape, target, name));
  const variables = {
    ...MOTO_VARIABLES,
    PATH: process.env['PATH'] ?? '',
    NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? '',
    WELDLINE_HOME: home,
    WELDLINE_TOOLS: TEST_TOOLS,
    WELDLINE_THREADS: '2',
    WELDLINE_LOG_LEVEL: 'warn',
    HF_HOME: join(directory, 'huggingface'),
    HF_ENDPOINT: world.hub.endpoint,
    AWS_ENDPOINT_URL_S3: world.s3.origin,
    AWS_ENDPOINT_URL: world.s3.origin,
  };
  const serverHome = `${directory}-server`;
  return { shape, directory, home, serverHome, recipe, target, prefix: `${name}/`, variables };
}

/** Forgets a round that went well. */
export async function removePlace(world: SoakWorld, place: RoundPlace): Promise<void> {
  for (const key of await world.bucket.keys(place.prefix)) await world.bucket.remove(key);
  await rm(place.directory, { recursive: true, force: true });
  await rm(place.serverHome, { recursive: true, force: true });
}

/** The recipe as a person would write it, in YAML's JSON. */
function recipeText(shape: Shape, target: string, prefix: string): string {
  const aliases = ['latest'];
  const model = shape === 'merge' ? 'hf://org/heavy' : 'hf://org/example';
  return JSON.stringify({
    ...{ name: 'soak', version: '1.0.0' },
    base: { model: `${model}-base` },
    adapters: [{ id: 'tone', model: `${model}-adapter`, version: '1' }],
    ...(shape !== 'merge' && { convert: [{ gguf: { quantization: ['Q8_0'] } }] }),
    ...(shape === 'quality' && { evaluate: { suites: [exampleSuite()] } }),
    publish: [
      { directory: { path: target }, aliases },
      { s3: { bucket: BUCKET, prefix }, aliases },
    ],
  });
}
