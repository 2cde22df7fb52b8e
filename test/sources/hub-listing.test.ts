import { describe, expect, it } from 'vitest';
import type { HubConnection } from '../../sources/hub-connection.ts';
import { resolveHubModel } from '../../sources/hub-model.ts';

const COMMIT = 'c'.repeat(40);

/** A hub that answers every request with this JSON. */
function answering(value: unknown, headers: Record<string, string> = {}): HubConnection {
  return {
    endpoint: 'http://hub.test',
    fetch: async () => new Response(JSON.stringify(value), { headers }),
  };
}

function file(path: unknown, more: object = {}): object {
  return { type: 'file', path, size: 3, oid: 'a'.repeat(40), ...more };
}

describe('resolveHubModel does not trust listings', () => {
  const resolve = (connection: HubConnection) =>
    resolveHubModel(connection, { repo: 'acme/tiny', revision: COMMIT });

  it.each([
    '../../../etc/passwd',
    '/etc/passwd',
    'a/../b',
    'a//b',
    './a',
    'a\\..\\b',
    'a\0b',
    'a\nb',
    '',
    `${'x'.repeat(2000)}`,
  ])('with the path %j', async (path) => {
    await expect(resolve(answering([file(path)]))).rejects.toMatchObject({
      code: 'hub.unsafe-path',
    });
  });

  it.each([
    ['an object', { files: [] }],
    ['a file without path', [file(undefined)]],
    ['a negative size', [file('a', { size: -1 })]],
    ['no size', [file('a', { size: undefined })]],
    ['a digest with a path in it', [file('a', { oid: '../../../../x' })]],
    ['an LFS file with a short digest', [file('a', { lfs: { oid: 'abc', size: 3 } })]],
    ['a file twice', [file('a'), file('a')]],
  ])('with %s', async (_name, value) => {
    await expect(resolve(answering(value))).rejects.toMatchObject({ code: 'hub.bad-response' });
  });

  it('without end', async () => {
    const endless = answering([], { link: '<http://hub.test/api/models/acme/tiny>; rel="next"' });
    await expect(resolve(endless)).rejects.toMatchObject({ code: 'hub.bad-response' });
  });

  it('that are no JSON', async () => {
    const html = {
      endpoint: 'http://hub.test',
      fetch: async () => new Response('<html>login</html>'),
    };
    await expect(resolve(html)).rejects.toMatchObject({ code: 'hub.bad-response' });
  });

  it('and takes only a commit for a commit', async () => {
    const run = resolveHubModel(answering({ sha: 'main' }), {
      repo: 'acme/tiny',
      revision: 'main',
    });
    await expect(run).rejects.toMatchObject({ code: 'hub.bad-response' });
  });

  it('and sends the token to no other origin', async () => {
    const seen: [string, string | null][] = [];
    const connection: HubConnection = {
      endpoint: 'http://hub.test',
      token: 'hf_token',
      async fetch(input, init) {
        const url = new URL(String(input));
        seen.push([url.host, new Headers(init?.headers).get('authorization')]);
        if (url.host === 'hub.test' && !url.searchParams.has('moved')) {
          return new Response(null, { status: 307, headers: { location: '/x?moved=1' } });
        }
        if (url.host === 'hub.test') {
          return new Response(null, { status: 302, headers: { location: 'http://hub.test:81/x' } });
        }
        return new Response('[]', { headers: { link: '<http://evil.test/more>; rel="next"' } });
      },
    };
    await resolve(connection).catch(() => undefined);
    expect(seen.slice(0, 4)).toEqual([
      ['hub.test', 'Bearer hf_token'],
      ['hub.test', 'Bearer hf_token'],
      ['hub.test:81', null],
      ['evil.test', null],
    ]);
  });
});
