/** The S3 publisher before moto, with a proxy between them that fails. */
import { afterAll, beforeAll } from 'vitest';
import { artefactNameOf, RELEASE_FILE } from '../../publishers/publisher.ts';
import { createS3Publisher } from '../../publishers/s3/s3-publisher.ts';
import { type PublisherUnderTest, TEST_PATIENCE, testPublisher } from '../conformance/publisher.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import {
  MOTO_PART_BYTES_MIN,
  MOTO_VARIABLES,
  type MotoServer,
  startMoto,
} from '../harness/moto-server.ts';
import { S3Bucket } from '../harness/s3-bucket.ts';

let moto: MotoServer;
let proxy: FaultyProxy;
let bucket: S3Bucket;
let targets = 0;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  moto = await startMoto();
  proxy = await startFaultyProxy(moto.url);
  bucket = await S3Bucket.create(moto.url, 'models');
});

afterAll(async () => {
  bucket?.close();
  await proxy?.close();
  await moto?.stop();
});

async function openTarget(): Promise<PublisherUnderTest> {
  const target = { bucket: 'models', prefix: `team/${targets++}`, endpoint: proxy.origin };
  proxy.clear();
  const publisher = await createS3Publisher(target, {
    patience: TEST_PATIENCE,
    // Weights go up in parts, all else at once.
    partBytesFor: () => 2 * MOTO_PART_BYTES_MIN,
  });
  return {
    publisher,
    proxy,
    child: { target: { s3: target }, env: {} },
    secrets: [MOTO_VARIABLES.AWS_SECRET_ACCESS_KEY, MOTO_VARIABLES.AWS_ACCESS_KEY_ID],
    async read(id) {
      const files = await bucket.read(`${target.prefix}/${artefactNameOf(id)}/`);
      return files.has(RELEASE_FILE) ? files : undefined;
    },
    async everything() {
      const keys = await bucket.keysAndUploads(`${target.prefix}/`);
      const names = keys.map((key) => key.slice(target.prefix.length + 1).split('/')[0]!);
      return [...new Set(names)];
    },
    cleanUp: async () => proxy.clear(),
  };
}

testPublisher('a bucket', openTarget, { prunes: true, hasServer: true });
