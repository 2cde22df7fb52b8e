import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type MotoServer, startMoto } from '../harness/moto-server.ts';
import { ROOT } from './compose-project.ts';

const SECRET = 'canary-of-a-secret';

let moto: MotoServer;

beforeAll(async () => {
  moto = await startMoto();
});
afterAll(() => moto.stop());

function createBucket(args: readonly string[], endpoint = moto.url) {
  return execa(process.execPath, [join(ROOT, 'deploy/create-bucket.mjs'), ...args], {
    env: {
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: SECRET,
      AWS_REGION: 'us-east-1',
      AWS_ENDPOINT_URL_S3: endpoint,
      AWS_MAX_ATTEMPTS: '1',
    },
    extendEnv: false,
    reject: false,
    all: true,
  });
}

test('the bucket is created once and kept the second time', async () => {
  expect((await createBucket(['models'])).stdout).toBe('bucket models created');
  expect((await createBucket(['models'])).stdout).toBe('bucket models exists');
});

test('a server that does not answer is named, and no secret is', async () => {
  const { exitCode, all } = await createBucket(['models'], 'http://127.0.0.1:1');
  expect(exitCode).toBe(1);
  expect(all).toMatch(
    /^The bucket models at http:\/\/127\.0\.0\.1:1 is not to be had .*Check AWS_/,
  );
  expect(all).not.toContain(SECRET);
});

test('without a name it says what it wants', async () => {
  expect(await createBucket([])).toMatchObject({
    exitCode: 2,
    stderr: expect.stringMatching(/^usage:/),
  });
});
