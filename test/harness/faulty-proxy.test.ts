import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type FaultyProxy, startFaultyProxy } from './faulty-proxy.ts';

describe('the faulty proxy', () => {
  /** What reached the server: `METHOD path body`. */
  const done: string[] = [];
  const server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    try {
      for await (const piece of request) pieces.push(piece as Buffer);
    } catch {
      done.push(`${request.method} ${request.url} cut`);
      return;
    }
    const body = Buffer.concat(pieces).toString();
    done.push(`${request.method} ${request.url} ${body}`);
    const { port } = server.address() as AddressInfo;
    const own = `http://127.0.0.1:${port}`;
    response.writeHead(201, { Location: `${own}/next`, 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ host: request.headers.host, href: `${own}/next`, body }));
  });
  let proxy: FaultyProxy;
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    proxy = await startFaultyProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  });
  afterAll(async () => {
    await proxy.close();
    server.close();
  });
  beforeEach(() => {
    proxy.clear();
    done.length = 0;
  });

  const put = (path = '/a?b=c', signal?: AbortSignal) =>
    fetch(proxy.origin + path, { method: 'PUT', body: 'x'.repeat(1000), signal: signal ?? null });

  it('passes on method, path, body and Host, and leads back to itself', async () => {
    const response = await put();
    expect(response.status).toBe(201);
    expect(response.headers.get('location')).toBe(`${proxy.origin}/next`);
    const answer = (await response.json()) as Record<string, string>;
    expect(answer['host']).toBe(new URL(proxy.origin).host);
    expect(answer['href']).toBe(`${proxy.origin}/next`);
    expect(answer['body']).toHaveLength(1000);
    expect(proxy.requests).toMatchObject([
      { method: 'PUT', path: '/a?b=c', bytes: 1000, status: 201 },
    ]);
    expect(proxy.uploadedBytes()).toBe(1000);
    expect(proxy.uploadedBytes(/^GET/)).toBe(0);
  });

  it('cuts requests, before or within their body', async () => {
    for (const afterBytes of [0, 10, 'half'] as const) {
      proxy.fail({ kind: 'drop-request', afterBytes });
      await expect(put()).rejects.toThrow('fetch failed');
    }
    await expect
      .poll(() => done, { timeout: 30_000 })
      .toEqual(['PUT /a?b=c cut', 'PUT /a?b=c cut']);
    expect((await put()).status).toBe(201);
  });

  it('loses answers of what was done', async () => {
    proxy.fail({ kind: 'drop-answer' });
    await expect(put()).rejects.toThrow('fetch failed');
    proxy.fail({ kind: 'status-after', status: 500 });
    expect((await put()).status).toBe(500);
    expect(done).toHaveLength(2);
  });

  it('answers by itself, to the requests that are meant, as often as is said', async () => {
    const headers = { 'Retry-After': '7' };
    proxy.fail({ kind: 'status', status: 429, path: /^\/b/, skip: 1, times: 2, headers });
    const statuses: number[] = [];
    for (const path of ['/a', '/b', '/b', '/a', '/b', '/b']) {
      const response = await put(path);
      statuses.push(response.status);
      if (response.status === 429) expect(response.headers.get('retry-after')).toBe('7');
    }
    expect(statuses).toEqual([201, 201, 429, 201, 429, 201]);
    expect(done).toHaveLength(4);
  });

  it('is slow, or silent', async () => {
    proxy.fail({ kind: 'slow', delayMs: 60 });
    const startedAt = performance.now();
    expect((await put()).status).toBe(201);
    expect(performance.now() - startedAt).toBeGreaterThan(55);
    proxy.fail({ kind: 'stall' });
    await expect(put('/', AbortSignal.timeout(50))).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(done).toHaveLength(1);
  });
});
