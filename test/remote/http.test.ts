import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { WeldlineError } from '../../engine/errors.ts';
import { codeOfStatus } from '../../publishers/publisher.ts';
import { type HttpRequest, httpRequest } from '../../remote/http.ts';

const CANARY = 'canary-7f3a';
const PATIENCE = { attemptsMax: 3, backoffMs: 5, stallTimeoutMs: 1500, retryAfterMaxMs: 2000 };

type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => void;

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

async function serve(handler: Handler): Promise<{ origin: string; requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    handler(request, response, requests.length);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

function ask(url: string, options: Partial<HttpRequest> = {}): Promise<Response> {
  return httpRequest({
    url,
    method: 'GET',
    signal: new AbortController().signal,
    patience: PATIENCE,
    name: 'the test server',
    codeOf: codeOfStatus,
    ...options,
  });
}

async function failureOf(work: Promise<unknown>): Promise<WeldlineError> {
  const error = await work.then(
    () => new Error('did not fail'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeldlineError);
  return error as WeldlineError;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

describe('a request', () => {
  it.each([408, 429, 500, 503])('is sent again after %i', async (status) => {
    const { origin, requests } = await serve((_, response, count) => {
      response.writeHead(count < 3 ? status : 200).end('fine');
    });
    expect(await (await ask(origin)).text()).toBe('fine');
    expect(requests).toHaveLength(3);
  });

  it.each([
    [401, 'publish.unauthorized', 1],
    [403, 'publish.unauthorized', 1],
    [404, 'publish.not-found', 1],
    [409, 'publish.conflict', 1],
    [400, 'publish.rejected', 1],
    [429, 'publish.rate-limited', 3],
    [502, 'publish.unavailable', 3],
  ])('fails after %i with %s, asked %i times', async (status, code, times) => {
    const { origin, requests } = await serve((_, response) => response.writeHead(status).end());
    const error = await failureOf(ask(origin));
    expect(error.code).toBe(code);
    expect(error.message).toContain(`the test server: the server answers ${status}`);
    expect(requests).toHaveLength(times);
  });

  it('gives back a status that is an answer', async () => {
    const { origin } = await serve((_, response) => response.writeHead(404).end('none'));
    expect((await ask(origin, { accept: [404] })).status).toBe(404);
  });

  it('sends a stream whole each time, with the length it was given', async () => {
    const bodies: string[] = [];
    const { origin, requests } = await serve(async (request, response, count) => {
      bodies.push(await textOf(request));
      response.writeHead(count === 1 ? 500 : 201).end();
    });
    async function* body() {
      yield Buffer.from('one ');
      yield Buffer.from('two');
    }
    const headers = { 'content-length': '7' };
    await (await ask(origin, { method: 'PUT', headers, body })).text();
    expect(bodies).toEqual(['one two', 'one two']);
    expect(requests.map((sent) => sent.headers['content-length'])).toEqual(['7', '7']);
    expect(requests.map((sent) => sent.headers['transfer-encoding'])).toEqual([
      undefined,
      undefined,
    ]);
  });

  it('passes on what the stream of its body throws, and does not send it again', async () => {
    const { origin, requests } = await serve((request) => request.resume());
    async function* body() {
      yield Buffer.from('one');
      throw new WeldlineError('disk.read-failed', 'gone');
    }
    const error = await failureOf(ask(origin, { method: 'PUT', body }));
    expect(error.code).toBe('disk.read-failed');
    expect(requests.length).toBeLessThan(2);
  });
});

describe('waiting', () => {
  it.each([
    ['seconds', () => '1'],
    ['a date', () => new Date(Date.now() + 1500).toUTCString()],
  ])('takes as long as Retry-After asks in %s', async (_, after) => {
    const { origin } = await serve((__, response, count) => {
      response.writeHead(count === 1 ? 429 : 200, { 'retry-after': after() }).end();
    });
    const begin = performance.now();
    await ask(origin);
    expect(performance.now() - begin).toBeGreaterThan(400);
  });

  it('is left to the workflow when the server asks for long', async () => {
    const { origin, requests } = await serve((_, response) => {
      response.writeHead(429, { 'retry-after': '3600' }).end();
    });
    const error = await failureOf(ask(origin));
    expect(error.details['retryAfterMs']).toBe(3_600_000);
    expect(requests).toHaveLength(1);
  });

  it('ends when the caller aborts', async () => {
    const { origin } = await serve((_, response) => {
      response.writeHead(503, { 'retry-after': '2' }).end();
    });
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await expect(ask(origin, { signal: controller.signal })).rejects.toThrow('enough');
  });
});

describe('a connection', () => {
  it('that is dropped is made again', async () => {
    const { origin } = await serve((request, response, count) => {
      if (count === 1) request.socket.destroy();
      else response.end('fine');
    });
    expect(await (await ask(origin)).text()).toBe('fine');
  });

  it('that is refused is unavailable', async () => {
    const { origin } = await serve(() => undefined);
    for (const close of closing.splice(0)) close();
    expect((await failureOf(ask(origin))).code).toBe('publish.unavailable');
  });

  it('on which no answer comes has stalled', async () => {
    const { origin, requests } = await serve(() => undefined);
    const error = await failureOf(ask(origin));
    expect(error.code).toBe('publish.unavailable');
    expect(error.message).toContain('nothing moved for 1.5 s');
    expect(requests).toHaveLength(3);
  });

  it('on which the body stops is found while reading', async () => {
    const { origin } = await serve((_, response) => {
      response.writeHead(200, { 'content-length': '10' }).write('half');
    });
    const error = await failureOf((await ask(origin)).text());
    expect(error.message).toContain('nothing moved');
  });

  it('that breaks within the body is found while reading', async () => {
    const { origin } = await serve((_, response) => {
      response.writeHead(200, { 'content-length': '10' }).write('half', () => response.destroy());
    });
    expect((await failureOf((await ask(origin)).text())).code).toBe('publish.unavailable');
  });

  it('that is slow and moves has not stalled', async () => {
    const { origin } = await serve((_, response) => {
      response.writeHead(200);
      let sent = 0;
      const timer = setInterval(() => {
        sent += 1;
        response.write('.');
        if (sent < 5) return;
        clearInterval(timer);
        response.end();
      }, 500);
    });
    expect(await (await ask(origin)).text()).toBe('.....');
  });
});

describe('credentials', () => {
  const headers = { authorization: `Basic ${Buffer.from(`me:${CANARY}`).toString('base64')}` };

  it('go along to the same origin only', async () => {
    const other = await serve((_, response) => response.end('stored'));
    const { origin, requests } = await serve((request, response) => {
      const location = request.url === '/' ? '/moved' : `${other.origin}/blob?sig=${CANARY}`;
      response.writeHead(307, { location }).end();
    });
    expect(await (await ask(origin, { headers })).text()).toBe('stored');
    expect(requests.map((sent) => sent.headers.authorization)).toEqual([
      headers.authorization,
      headers.authorization,
    ]);
    expect(other.requests[0]?.headers.authorization).toBeUndefined();
  });

  it('do not show, whatever the server repeats', async () => {
    const { origin } = await serve((request, response) => {
      const message = `who is ${CANARY}, who is ${request.headers.authorization}?\n`;
      response.writeHead(401).end(JSON.stringify({ errors: [{ code: 'DENIED', message }] }));
    });
    const error = await failureOf(ask(`${origin}/?key=${CANARY}`, { headers }));
    expect(error.message).toContain('DENIED: who is [secret], who is Basic [secret]?');
    expect(JSON.stringify(error) + error.stack).not.toContain(CANARY);
  });

  it.each([
    ['without end', '/'],
    ['to a file', 'file:///etc/passwd'],
    ['with a password', `http://me:${CANARY}@127.0.0.1/`],
    ['to nothing', 'http://'],
  ])('are not led %s', async (_, location) => {
    const { origin } = await serve((__, response) => response.writeHead(302, { location }).end());
    const error = await failureOf(ask(origin, { headers }));
    expect(error.code).toBe('publish.rejected');
    expect(error.message).not.toContain(CANARY);
  });
});
