import type { ServerResponse } from 'node:http';
import { afterEach, expect, it } from 'vitest';
import { digestOfBytes } from '../../../remote/oci/manifest.ts';
import { getConfig, listTags } from '../../../remote/oci/manifests.ts';
import { parsePlace } from '../../../remote/oci/oci-place.ts';
import { registryClient } from '../../../remote/oci/registry-client.ts';
import { codeOfHttp } from '../../../sources/http-probe.ts';
import { TEST_PATIENCE } from '../../conformance/publisher-stage.ts';
import { closeServer, listen, originOf } from '../../hub-server/listen.ts';

const { signal } = new AbortController();
const server = await listen(0, async (_request, response) => answer(response));
let answer: (response: ServerResponse) => void;
afterEach(() => closeServer(server));

/** What a registry answers that is broken, or not one. */
const ANSWERS: readonly [string, (response: ServerResponse) => void, RegExp][] = [
  [
    'never ends',
    (response) => {
      const block = Buffer.alloc(1 << 20, '[');
      const write = (): void => void (response.destroyed || response.write(block, write));
      write();
    },
    /its tags.*answers without end/,
  ],
  ['is no list', (response) => response.end('null'), /sends no list of tags/],
  [
    'goes on nowhere',
    (response) => {
      response.setHeader('link', '<http://[>; rel="next"');
      response.end('{"tags": ["latest"]}');
    },
    /goes on with its tags at no address/,
  ],
];

it('takes a list of tags that is none for an error that says so', async () => {
  const client = registryClient({
    place: parsePlace(`${new URL(originOf(server)).host}/models/own`)!,
    dockerConfig: '/nowhere',
    patience: TEST_PATIENCE,
    codeOf: codeOfHttp,
  });
  for (const [what, said, message] of ANSWERS) {
    answer = said;
    await expect(listTags(client, signal), what).rejects.toMatchObject({
      code: 'source.unavailable',
      message: expect.stringMatching(message),
    });
  }
  answer = (response) => response.end('{}');
  const config = { mediaType: 'application/json', size: 2, digest: digestOfBytes('[]') };
  await expect(getConfig(client, config, signal)).rejects.toThrow('another blob');
  const own = { ...config, digest: digestOfBytes('{}') };
  expect(await getConfig(client, own, signal)).toEqual({});
});
