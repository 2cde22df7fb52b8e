import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Secret } from '../../../config/secret.ts';
import { WeldlineError } from '../../../engine/errors.ts';
import { codeOfStatus } from '../../../publishers/publisher.ts';
import { checkWritable } from '../../../remote/oci/blobs.ts';
import { readDockerCredentials } from '../../../remote/oci/docker-credentials.ts';
import { listTags } from '../../../remote/oci/manifests.ts';
import { parsePlace } from '../../../remote/oci/oci-place.ts';
import { type RegistryClient, registryClient } from '../../../remote/oci/registry-client.ts';
import { type RegistryServer, startRegistry } from '../../harness/registry-server.ts';
import { closeServer, listen, originOf } from '../../hub-server/listen.ts';

const CANARY = 'canary-a41f';
const PATIENCE = { attemptsMax: 2, backoffMs: 5, stallTimeoutMs: 2000, retryAfterMaxMs: 1000 };
const { signal } = new AbortController();

let directory: string;
const servers: Server[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-docker-'));
});
afterEach(async () => {
  for (const server of servers.splice(0)) await closeServer(server);
  await rm(directory, { recursive: true, force: true });
});

async function serve(
  handler: (request: IncomingMessage, response: ServerResponse) => void | Promise<void>,
): Promise<string> {
  const server = await listen(0, handler);
  servers.push(server);
  return originOf(server);
}

async function writeConfig(config: unknown): Promise<void> {
  const content = typeof config === 'string' ? config : JSON.stringify(config);
  await writeFile(join(directory, 'config.json'), content);
}

function clientOf(origin: string): RegistryClient {
  const place = parsePlace(`${new URL(origin).host}/models/tiny`)!;
  return registryClient({
    ...{ place, dockerConfig: directory, patience: PATIENCE, codeOf: codeOfStatus },
  });
}

async function errorOf(work: Promise<unknown>): Promise<WeldlineError> {
  const error = await work.then(
    () => new Error('did not fail'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeldlineError);
  const { message, stack, cause, details } = error as WeldlineError;
  expect(`${message}${stack}${String(cause)}${JSON.stringify(details)}`).not.toContain(CANARY);
  return error as WeldlineError;
}

const auth = (pair: string) => ({ auth: Buffer.from(pair).toString('base64') });

describe('a registry that asks for tokens', () => {
  let registry: RegistryServer;
  let front: string;
  /** What the token server was asked. */
  let asked: { method: string; query: string; authorization: string | undefined }[];
  /** How often the registry asked who is there. */
  let challenges: number;
  let offer: (bearer: string) => string;
  let grants: (authorization: string | undefined, form: URLSearchParams) => unknown;

  beforeAll(async () => {
    registry = await startRegistry();
  });
  afterAll(() => registry.close());

  beforeEach(async () => {
    asked = [];
    challenges = 0;
    offer = (bearer) => bearer;
    grants = () => ({ token: `token-${CANARY}` });
    const tokens = await serve(async (request, response) => {
      const { method = '', url = '', headers } = request;
      const form = new URLSearchParams(
        method === 'POST' ? await text(request) : url.slice(url.indexOf('?')),
      );
      asked.push({ method, query: form.toString(), authorization: headers.authorization });
      const answer = grants(headers.authorization, form);
      response.writeHead(answer === undefined ? 401 : 200);
      response.end(JSON.stringify(answer ?? { errors: [{ code: 'DENIED', message: CANARY }] }));
    });
    // In front of the real registry, which has no token server of its own.
    front = await serve(async (request, response) => {
      const { method = 'GET', url = '/', headers } = request;
      const scope = `repository:models/tiny:${method === 'GET' ? 'pull' : 'pull,push'}`;
      if (headers.authorization !== `Bearer token-${CANARY}`) {
        challenges += 1;
        const challenge = `Bearer realm="${tokens}/token",service="tests",scope="${scope}"`;
        response.writeHead(401, { 'www-authenticate': offer(challenge) }).end();
        return;
      }
      const answer = await fetch(`${registry.origin}${url}`, { method });
      const location = answer.headers.get('location')?.replace(registry.origin, front);
      response.writeHead(answer.status, location === undefined ? {} : { location });
      response.end(Buffer.from(await answer.arrayBuffer()));
    });
  });

  it('gives them to everyone who has none, and is not asked for each request', async () => {
    const client = clientOf(front);
    await listTags(client, signal);
    await listTags(client, signal);
    await checkWritable(client, signal);
    expect(asked.map(({ method, query }) => `${method} ${decodeURIComponent(query)}`)).toEqual([
      'GET service=tests&scope=repository:models/tiny:pull',
      'GET service=tests&scope=repository:models/tiny:pull,push',
      'GET service=tests&scope=repository:models/tiny:pull,push',
    ]);
    expect(asked.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it('is asked for a new one before the old one runs out', async () => {
    grants = () => ({ token: `token-${CANARY}`, expires_in: 0 });
    const client = clientOf(front);
    await listTags(client, signal);
    await listTags(client, signal);
    expect([asked.length, challenges]).toEqual([2, 1]);
  });

  it('may offer a password beside them', async () => {
    const offers: (typeof offer)[] = [
      (bearer) => `Basic realm="b", ${bearer}`,
      (bearer) => `${bearer}, Basic realm="b"`,
    ];
    for (offer of offers) {
      await listTags(clientOf(front), signal);
    }
    expect(asked).toHaveLength(2);
  });

  it('gives them for a password', async () => {
    await writeConfig({ auths: { [new URL(front).host]: auth(`me:${CANARY}`) } });
    await listTags(clientOf(front), signal);
    expect(asked[0]?.authorization).toBe(`Basic ${auth(`me:${CANARY}`).auth}`);
  });

  it('gives them for an identity token', async () => {
    await writeConfig({ auths: { [new URL(front).host]: { identitytoken: CANARY } } });
    grants = (_, form) =>
      form.get('refresh_token') === CANARY ? { access_token: `token-${CANARY}` } : undefined;
    await listTags(clientOf(front), signal);
    expect(asked[0]).toMatchObject({
      method: 'POST',
      query: expect.stringContaining('grant_type=refresh_token'),
    });
  });

  it('says who is refused, without the password', async () => {
    await writeConfig({ auths: { [new URL(front).host]: auth(`me:${CANARY}`) } });
    grants = () => undefined;
    const error = await errorOf(listTags(clientOf(front), signal));
    expect(error.code).toBe('publish.unauthorized');
    expect(error.message).toContain('the token server');
    expect(error.message).toContain('DENIED');
  });

  it('says that an identity token is refused, without it', async () => {
    await writeConfig({ auths: { [new URL(front).host]: { identitytoken: CANARY } } });
    grants = () => undefined;
    const error = await errorOf(listTags(clientOf(front), signal));
    expect(error.code).toBe('publish.unauthorized');
    expect(error.message).toContain('refuses the identity token (401)');
  });

  it.each([[{}], [{ token: 'two\r\nlines' }], [{ token: 7 }]])('gives none: %j', async (answer) => {
    grants = () => answer;
    const error = await errorOf(listTags(clientOf(front), signal));
    expect(error.message).toContain('gives no token');
  });

  it('refuses a token that it gave', async () => {
    grants = () => ({ token: 'another' });
    const error = await errorOf(listTags(clientOf(front), signal));
    expect(error.code).toBe('publish.unauthorized');
  });
});

describe('a challenge', () => {
  it.each([
    ['Bearer realm="ftp://127.0.0.1/token"'],
    ['Bearer realm="http://me:secret@127.0.0.1/token"'],
    ['Bearer service="none"'],
    ['Digest realm="old"'],
    ['Basic realm="no credentials"'],
    [''],
  ])('that nobody can answer is an error: %s', async (challenge) => {
    let requests = 0;
    const origin = await serve((_, response) => {
      requests += 1;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    });
    const error = await errorOf(listTags(clientOf(origin), signal));
    expect(error.code).toBe('publish.unauthorized');
    expect(requests).toBe(1);
  });

  it('keeps the password from the servers that a registry sends its clients to', async () => {
    const seen: (string | undefined)[] = [];
    const storage = await serve((request, response) => {
      seen.push(request.headers.authorization);
      response.end('{"tags":["one"]}');
    });
    const origin = await serve((request, response) => {
      if (request.headers.authorization === undefined) {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="tests"' }).end();
      } else response.writeHead(307, { location: `${storage}/tags` }).end();
    });
    await writeConfig({ auths: { [new URL(origin).host]: auth(`me:${CANARY}`) } });
    expect(await listTags(clientOf(origin), signal)).toEqual(['one']);
    expect(seen).toEqual([undefined]);
  });
});

describe("Docker's configuration", () => {
  const registry = 'registry.example.com';
  const read = (name = registry) => readDockerCredentials(directory, name);

  it.each([
    ['a name', { auths: { [registry]: auth(`me:${CANARY}`) } }],
    ['an address', { auths: { [`https://${registry}/v1/`]: auth(`me:${CANARY}`) } }],
    ['plain fields', { auths: { [registry]: { username: 'me', password: CANARY } } }],
  ])('has a password under %s', async (_, config) => {
    await writeConfig(config);
    expect(await read()).toEqual({ username: 'me', password: new Secret(CANARY) });
    expect(((await read()) as { password: Secret }).password.reveal()).toBe(CANARY);
    expect(await read('other.example.com')).toBeUndefined();
  });

  it("has Docker Hub's under its old address", async () => {
    await writeConfig({ auths: { 'https://index.docker.io/v1/': auth(`me:a:${CANARY}`) } });
    const found = (await read('docker.io')) as { password: Secret };
    expect(found.password.reveal()).toBe(`a:${CANARY}`);
  });

  it('need not be there, nor have anything', async () => {
    expect(await read()).toBeUndefined();
    await writeConfig({ auths: { [registry]: {} } });
    expect(await read()).toBeUndefined();
  });

  it.each([
    ['no JSON', `{"auths": ${CANARY}`],
    ['no object', '"text"'],
    ['no user', { auths: { [registry]: auth(CANARY) } }],
    ['a helper that is a path', { credsStore: '../../bin/evil' }],
    ['a helper that is missing', { credHelpers: { [registry]: 'weldline-missing' } }],
  ])('that has %s is an error that quotes nothing', async (_, config) => {
    await writeConfig(config);
    const error = await errorOf(read());
    expect(error.code).toBe('config.invalid');
    expect(error.message).toContain(join(directory, 'config.json'));
  });

  describe('with a helper', () => {
    const path = process.env['PATH'];
    afterEach(() => {
      process.env['PATH'] = path;
    });

    async function helper(script: string): Promise<void> {
      const program = join(directory, 'docker-credential-weldtest');
      await writeFile(program, `#!/bin/sh\nread -r server\n${script}\n`);
      await chmod(program, 0o755);
      process.env['PATH'] = `${directory}${delimiter}${path}`;
    }

    it('asks it for the registry', async () => {
      await helper(`printf '{"Username":"me","Secret":"${CANARY} for %s"}' "$server"`);
      for (const config of [
        { credHelpers: { [registry]: 'weldtest' } },
        { credsStore: 'weldtest' },
      ]) {
        await writeConfig(config);
        const found = (await read()) as { username: string; password: Secret };
        expect(found.username).toBe('me');
        expect(found.password.reveal()).toBe(`${CANARY} for ${registry}`);
      }
    });

    it('takes an identity token', async () => {
      await helper(`printf '{"Username":"<token>","Secret":"${CANARY}"}'`);
      await writeConfig({ credsStore: 'weldtest' });
      expect(await read()).toEqual({ identityToken: new Secret(CANARY) });
    });

    it('takes what the file has where the helper has nothing', async () => {
      await helper('echo "credentials not found in native keychain"; exit 1');
      await writeConfig({ credsStore: 'weldtest', auths: { [registry]: auth(`me:${CANARY}`) } });
      expect(await read()).toMatchObject({ username: 'me' });
    });

    it.each([
      ['fails', `echo ${CANARY}; echo ${CANARY} >&2; exit 3`],
      ['says something else', `echo ${CANARY}`],
      ['says half of it', `printf '{"Secret":"${CANARY}"}'`],
    ])('is an error when it %s', async (_, script) => {
      await helper(script);
      await writeConfig({ credsStore: 'weldtest' });
      const error = await errorOf(read());
      expect(error.message).toContain('docker-credential-weldtest');
    });
  });
});
