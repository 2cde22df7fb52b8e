import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { S3Objects } from '../../publishers/s3/s3-objects.ts';
import { connectS3, type S3Connection } from '../../remote/s3-connection.ts';
import { MOTO_VARIABLES } from '../harness/moto-server.ts';
import { closeServer, type Handler, listen, originOf } from '../hub-server/listen.ts';

const PATIENCE = { attemptsMax: 3, backoffMs: 5, stallTimeoutMs: 1500, retryAfterMaxMs: 1000 };
const { signal } = new AbortController();
const variables = { ...process.env };

let server: Server;
let answer: Handler;
let asked: { request: IncomingMessage; body: Buffer }[];

beforeEach(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  asked = [];
  answer = (_request, response) => void response.end();
  server = await listen(0, async (request, response, url) => {
    asked.push({ request, body: await buffer(request) });
    await answer(request, response, url);
  });
});
afterEach(async () => {
  await closeServer(server);
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, variables);
});

function connect(endpoint = originOf(server)) {
  return connectS3({ bucket: 'models', endpoint, side: 'publish', patience: PATIENCE });
}

function head(s3: S3Connection) {
  return s3.call('s3://models', signal, (client, call) =>
    client.send(new s3.sdk.HeadBucketCommand({ Bucket: 'models' }), call),
  );
}

/** Answers as S3 does. */
function fail(status: number, code: string, headers: Readonly<Record<string, string>> = {}): void {
  answer = (_request, response) => {
    response.writeHead(status, { 'content-type': 'application/xml', ...headers });
    response.end(`<Error><Code>${code}</Code><Message>moto-canary</Message></Error>`);
  };
}

describe('a request to S3', () => {
  it('is signed with the digest of its body, as Signature Version 4 wants it', async () => {
    const bytes = randomBytes(1000);
    await new S3Objects(await connect(), '', signal).put('a b/ü.bin', bytes);
    const { request, body } = asked[0]!;
    expect(body.equals(bytes)).toBe(true);
    const digest = createHash('sha256').update(bytes).digest();
    expect(request.headers).toMatchObject({
      'x-amz-content-sha256': digest.toString('hex'),
      'x-amz-checksum-sha256': digest.toString('base64'),
      'x-amz-meta-sha256': digest.toString('hex'),
    });
    const { authorization = '' } = request.headers;
    expect(authorization).toMatch(/SignedHeaders=[^,]*x-amz-checksum-sha256/);
    expect(signatureIn(authorization)).toBe(signatureOf(request, authorization));
  });

  it.each([
    [503, 'SlowDown', 'publish.unavailable', 3],
    [400, 'RequestTimeout', 'publish.unavailable', 3],
    [400, 'BadDigest', 'publish.unavailable', 3],
    [409, 'ConditionalRequestConflict', 'publish.unavailable', 3],
    [200, 'InternalError', 'publish.unavailable', 3],
    [429, 'TooManyRequests', 'publish.rate-limited', 3],
    [403, 'SignatureDoesNotMatch', 'publish.unauthorized', 1],
    [400, 'ExpiredToken', 'publish.unauthorized', 1],
    [404, 'NoSuchBucket', 'publish.not-found', 1],
    [400, 'AuthorizationHeaderMalformed', 'publish.rejected', 1],
    [501, 'NotImplemented', 'publish.rejected', 1],
    [412, 'PreconditionFailed', 'publish.conflict', 1],
  ])('that is answered %i %s is %s after %i attempts', async (status, reason, code, attempts) => {
    fail(status, reason);
    const s3 = await connect();
    const failed = await s3
      .call('s3://models/x', signal, (client, call) =>
        client.send(
          new s3.sdk.CompleteMultipartUploadCommand({
            ...{ Bucket: 'models', Key: 'x', UploadId: 'u', MultipartUpload: { Parts: [] } },
          }),
          call,
        ),
      )
      .catch((error: Error) => error);
    expect(failed).toMatchObject({ code, message: expect.stringContaining('s3://models/x') });
    expect((failed as Error).message).toContain(reason);
    // What servers write may repeat what was signed.
    expect((failed as Error).message).not.toContain('canary');
    expect(asked).toHaveLength(attempts);
  });

  it('waits as long as the server asks, within reason', async () => {
    fail(503, 'SlowDown', { 'retry-after': '1' });
    const startedMs = performance.now();
    await expect(head(await connect())).rejects.toMatchObject({ code: 'publish.unavailable' });
    expect(performance.now() - startedMs).toBeGreaterThan(1900);
    asked = [];
    fail(503, 'SlowDown', { 'retry-after': '60' });
    await expect(head(await connect())).rejects.toMatchObject({ code: 'publish.unavailable' });
    expect(asked).toHaveLength(1);
  });

  it('fails if nothing is heard, or nobody is there', async () => {
    answer = () => undefined;
    const silent = { code: 'publish.unavailable', message: expect.stringMatching(/Timeout/) };
    await expect(head(await connect())).rejects.toMatchObject(silent);
    const nobody = { code: 'publish.unavailable', message: expect.stringMatching(/ECONNREFUSED/) };
    await expect(head(await connect('http://127.0.0.1:1'))).rejects.toMatchObject(nobody);
  });

  it('says what to set where there are no credentials, without asking for long', async () => {
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']) delete process.env[name];
    process.env['HOME'] = '/nonexistent';
    const s3 = await connect();
    await expect(head(s3)).rejects.toMatchObject({
      code: 'publish.unauthorized',
      message: expect.stringMatching(/AWS_ACCESS_KEY_ID.*AWS_PROFILE/),
    });
    expect(asked).toEqual([]);
    // Found as soon as they are there.
    Object.assign(process.env, MOTO_VARIABLES);
    await head(s3);
  });

  it('ends with the reason of whoever stops it', async () => {
    answer = () => undefined;
    const controller = new AbortController();
    const s3 = await connect();
    const stopped = s3.call('s3://models', controller.signal, (client, call) =>
      client.send(new s3.sdk.HeadBucketCommand({ Bucket: 'models' }), call),
    );
    setTimeout(() => controller.abort(new Error('stop')), 50);
    await expect(stopped).rejects.toThrow('stop');
  });
});

function signatureIn(authorization: string): string | undefined {
  return /Signature=([0-9a-f]{64})$/.exec(authorization)?.[1];
}

/** AWS Signature Version 4, from its documentation. */
function signatureOf(
  { method, url = '', headers }: IncomingMessage,
  authorization: string,
): string {
  const [, scope = ''] = /Credential=[^/]+\/([^,]+)/.exec(authorization) ?? [];
  const [, names = ''] = /SignedHeaders=([^,]+)/.exec(authorization) ?? [];
  const [path = '', query = ''] = url.split('?');
  const canonical = [
    ...[method, path, query.split('&').sort().join('&')],
    ...names.split(';').map((name) => `${name}:${String(headers[name]).trim()}`),
    ...['', names, headers['x-amz-content-sha256']],
  ].join('\n');
  const hash = createHash('sha256').update(canonical).digest('hex');
  const text = ['AWS4-HMAC-SHA256', headers['x-amz-date'], scope, hash].join('\n');
  const hmac = (key: string | Buffer, data: string) =>
    createHmac('sha256', key).update(data).digest();
  const key = scope
    .split('/')
    .reduce<string | Buffer>(hmac, `AWS4${MOTO_VARIABLES.AWS_SECRET_ACCESS_KEY}`);
  return hmac(key, text).toString('hex');
}
