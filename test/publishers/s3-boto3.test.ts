/** boto3, which reads what is published, and stores what is read. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createS3Publisher } from '../../publishers/s3/s3-publisher.ts';
import { PATIENCE } from '../../remote/patience.ts';
import { s3Source } from '../../sources/s3-source.ts';
import {
  MOTO_PART_BYTES_MIN,
  MOTO_VARIABLES,
  type MotoServer,
  startMoto,
} from '../harness/moto-server.ts';
import { S3Bucket } from '../harness/s3-bucket.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { runServicesPython } from '../services-python.ts';

const RELEASE = 'merged-tiny-1.0.0-adapter-tone-3';
const { signal } = new AbortController();

interface Answer {
  readonly found: Readonly<
    Record<string, { size: number; sha256: string; said: string; checksum: string }>
  >;
  readonly alias: unknown;
}

let moto: MotoServer;
let bucket: S3Bucket;
let directory: string;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  moto = await startMoto();
  bucket = await S3Bucket.create(moto.url, 'models');
  directory = await mkdtemp(join(tmpdir(), 'weldline-boto3-'));
});
afterAll(async () => {
  bucket?.close();
  await moto?.stop();
  await rm(directory, { recursive: true, force: true });
});

describe('boto3', () => {
  it('finds what weldline published, and weldline finds what boto3 stored', async () => {
    const target = { bucket: 'models', prefix: 'team', endpoint: moto.url };
    const publisher = await createS3Publisher(target, {
      patience: PATIENCE,
      partBytesFor: () => MOTO_PART_BYTES_MIN,
    });
    const artefact = await testArtefact(directory, { release: RELEASE });
    await publisher.publish(artefact, { signal, onProgress: () => undefined, publishedAt: [] });
    const history = ['merged-tiny-0.9.0-adapter-tone-2'];
    const move = { alias: 'production', to: RELEASE, from: undefined, history };
    await publisher.moveAlias(move, signal);
    const stored = { 'config.json': Buffer.from('{}'), 'model.safetensors': testBytes(200_000) };
    for (const [name, bytes] of Object.entries(stored)) {
      await writeFile(join(directory, name), bytes);
    }

    const script = join(import.meta.dirname, 's3_boto3.py');
    const { found, alias } = (await runServicesPython(script, {
      ...{ endpoint: moto.url, bucket: 'models', prefix: `team/${RELEASE}/`, directory },
      ...{ alias: 'team/aliases/production.json', store: Object.keys(stored) },
    })) as Answer;

    expect(Object.keys(found).sort()).toEqual(artefact.files.map(({ path }) => path).sort());
    for (const { path, size, sha256 } of artefact.files) {
      expect(found[path], path).toMatchObject({ size, sha256, said: sha256 });
      const ofBytes = Buffer.from(sha256, 'hex').toString('base64');
      if (path !== 'model.safetensors') expect(found[path]?.checksum, path).toBe(ofBytes);
      else expect(found[path]?.checksum, path).toMatch(/^[\w+/]{43}=/);
    }
    expect(alias).toEqual({ release: RELEASE, history });

    const source = s3Source({ endpoint: moto.url });
    const model = await source.resolve('s3://models/boto3');
    expect(model.files.map(({ path }) => path)).toEqual(Object.keys(stored));
    for (const file of model.files) {
      const bytes = await source.open(model, file).read(0, file.size);
      expect(Buffer.compare(bytes, stored[file.path as keyof typeof stored]), file.path).toBe(0);
    }
    // And what weldline published is a model with known digests, but of what went up in parts.
    const published = await source.resolve(`s3://models/team/${RELEASE}`);
    for (const { path, sha256 } of artefact.files) {
      const known = path === 'model.safetensors' ? undefined : sha256;
      expect(published.files.find((file) => file.path === path)?.sha256, path).toBe(known);
    }
  });
});
