import { afterEach, describe, expect, it } from 'vitest';
import { hubFileReader } from '../../sources/hub-file-reader.ts';
import { resolveHubModel } from '../../sources/hub-model.ts';
import type { HubServerOptions } from '../hub-server/hub-server.ts';
import { startTestHub, type TestHub, type TestRepository } from '../hub-server/test-hub.ts';

let hub: TestHub | undefined;
afterEach(async () => {
  await hub?.close();
  hub = undefined;
});

async function start(
  repositories: Record<string, TestRepository>,
  options: Omit<HubServerOptions, 'root'> = {},
): Promise<TestHub> {
  hub = await startTestHub(repositories, options);
  return hub;
}

describe('resolveHubModel', () => {
  it('pins a branch, a tag and a shortened commit, and lists files with their digests', async () => {
    const server = await start({
      'acme/tiny': {
        main: { 'config.json': '{}', 'model.safetensors': 'weights' },
        'v1.0': { 'config.json': '{"v": 1}' },
        'refs/pr/7': { 'config.json': '{"v": 7}' },
      },
    });
    const resolve = (revision: string) =>
      resolveHubModel(server.connection(), { repo: 'acme/tiny', revision });
    const main = await resolve('main');
    expect(main).toEqual({
      repo: 'acme/tiny',
      revision: 'main',
      commit: server.commitOf('acme/tiny', 'main'),
      files: [
        { path: 'config.json', size: 2, gitSha1: '9e26dfeeb6e641a33dae4961196235bdb965b21b' },
        {
          path: 'model.safetensors',
          size: 7,
          sha256: '9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c',
        },
      ],
    });
    for (const revision of ['v1.0', 'refs/pr/7']) {
      expect((await resolve(revision)).commit).toBe(server.commitOf('acme/tiny', revision));
    }
    expect((await resolve(main.commit.slice(0, 8))).commit).toBe(main.commit);
    expect((await resolve(main.commit)).files).toEqual(main.files);
  });

  it('keeps the pins of base and adapter apart when their revisions differ', async () => {
    const server = await start({
      'acme/base': { main: { 'model.safetensors': 'new' }, v1: { 'model.safetensors': 'old' } },
      'acme/lora': {
        main: { 'adapter_model.safetensors': 'a' },
        v1: { 'adapter_model.safetensors': 'b' },
      },
    });
    const pin = async (repo: string, revision: string) =>
      (await resolveHubModel(server.connection(), { repo, revision })).commit;
    const pins = [
      await pin('acme/base', 'main'),
      await pin('acme/base', 'v1'),
      await pin('acme/lora', 'main'),
      await pin('acme/lora', 'v1'),
    ];
    expect(new Set(pins).size).toBe(4);
  });

  it('reads listings of many pages, and repositories without an organization', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 25 }, (_, index) => [`f${index}.txt`, `${index}`]),
    );
    const server = await start({ gpt2: { main: files } }, { pageSize: 10 });
    const model = await resolveHubModel(server.connection(), { repo: 'gpt2', revision: 'main' });
    expect(model.files.map(({ path }) => path).toSorted()).toEqual(Object.keys(files).toSorted());
    expect(server.requests.filter(({ path }) => path.includes('/tree/'))).toHaveLength(3);
  });

  it('waits and tries again when the hub is busy or silent', async () => {
    const server = await start({ 'acme/tiny': { main: { 'config.json': '{}' } } });
    server.inject({ kind: 'status', target: 'api', status: 429, headers: { 'retry-after': '0' } });
    server.inject({ kind: 'status', target: 'api', status: 503 });
    server.inject({ kind: 'stall', target: 'api' });
    const model = await resolveHubModel(server.connection(), {
      repo: 'acme/tiny',
      revision: 'main',
    });
    expect(model.files).toHaveLength(1);
  });

  it('stops on request', async () => {
    const server = await start({ 'acme/tiny': { main: { 'config.json': '{}' } } });
    server.inject({ kind: 'stall', target: 'api' });
    const signal = AbortSignal.timeout(50);
    await expect(
      resolveHubModel(server.connection(), { repo: 'acme/tiny', revision: 'main', signal }),
    ).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});

describe('resolveHubModel refused', () => {
  it.each([
    [
      'a missing repository, without a token',
      'acme/none',
      'main',
      undefined,
      'hub.unauthorized',
      'check the spelling',
    ],
    [
      'a missing repository, with a token',
      'acme/none',
      'main',
      'hf_any',
      'hub.not-found',
      'no model acme/none',
    ],
    ['a missing revision', 'acme/tiny', 'v9', undefined, 'hub.not-found', 'hf://acme/tiny@v9'],
    [
      'a private repository, without a token',
      'acme/secret',
      'main',
      undefined,
      'hub.unauthorized',
      'HF_TOKEN',
    ],
    [
      'a private repository, with a foreign token',
      'acme/secret',
      'main',
      'hf_other',
      'hub.not-found',
      'private',
    ],
  ] as const)('%s', async (_name, repo, revision, token, code, said) => {
    const server = await start(
      { 'acme/tiny': { main: { a: '1' } }, 'acme/secret': { main: { a: '1' } } },
      { privateRepositories: { 'acme/secret': ['hf_good'] } },
    );
    await expect(
      resolveHubModel(server.connection(token), { repo, revision }),
    ).rejects.toMatchObject({
      code,
      message: expect.stringContaining(said),
    });
    expect(
      await resolveHubModel(server.connection('hf_good'), {
        repo: 'acme/secret',
        revision: 'main',
      }),
    ).toBeDefined();
  });

  it.each([
    [undefined, 'set HF_TOKEN'],
    ['hf_other', 'with the account whose token is in HF_TOKEN'],
  ])('a gated repository, with the token %s', async (token, said) => {
    const server = await start(
      { 'acme/gated': { main: { 'config.json': '{}', 'model.safetensors': 'w' } } },
      { gatedRepositories: { 'acme/gated': ['hf_good'] } },
    );
    // As on the hub, anybody may list it.
    const model = await resolveHubModel(server.connection(token), {
      repo: 'acme/gated',
      revision: 'main',
    });
    for (const hubFile of model.files) {
      await expect(
        hubFileReader(server.connection(token), model, hubFile).stream(0, 1, () => undefined),
      ).rejects.toMatchObject({
        code: 'hub.gated',
        message: expect.stringContaining(`accept its licence at ${server.endpoint}/acme/gated`),
      });
      await expect(
        hubFileReader(server.connection(token), model, hubFile).stream(0, 1, () => undefined),
      ).rejects.toMatchObject({ message: expect.stringContaining(said) });
      await hubFileReader(server.connection('hf_good'), model, hubFile).stream(
        0,
        1,
        () => undefined,
      );
    }
  });

  it('a token that cannot be sent, without quoting it', async () => {
    const server = await start({ 'acme/tiny': { main: { a: '1' } } });
    const run = resolveHubModel(server.connection('hf_one\nhf_two'), {
      repo: 'acme/tiny',
      revision: 'main',
    });
    await expect(run).rejects.toMatchObject({
      code: 'hub.unauthorized',
      message: expect.not.stringContaining('hf_one'),
    });
  });

  it.each([
    'not a url',
    'ftp://hub.test',
    'https://user:secret@hub.test',
    'https://hub.test?token=secret',
  ])('the endpoint %s, without quoting it', async (endpoint) => {
    const run = resolveHubModel({ endpoint }, { repo: 'acme/tiny', revision: 'main' });
    await expect(run).rejects.toMatchObject({
      code: 'config.invalid',
      message: expect.not.stringContaining('secret'),
    });
  });
});
