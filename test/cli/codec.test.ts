import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCodecServer } from '../../cli/codec.ts';
import { readEnvironment } from '../../config/environment.ts';
import { EncryptionCodec } from '../../workers/payload-codec.ts';
import { payloadKeysOf } from '../../workers/payload-keys.ts';
import { runCommand, startCommand } from '../harness/command.ts';

const UI = 'https://temporal.example.com';
const CANARY = 'canary-1f02';

let directory: string;
let file: string;
let server: Server;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-codec-'));
  file = join(directory, 'keys');
  await writeFile(file, `k ${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
  const keys = payloadKeysOf(readEnvironment({ WELDLINE_PAYLOAD_KEYS: file }));
  server = await startCodecServer(new EncryptionCodec(keys), UI, 0);
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(directory, { recursive: true });
});

interface Answer {
  readonly status: number | undefined;
  readonly allowed: string | undefined;
  readonly text: string;
}

async function ask(
  path: string,
  body: string,
  headers: Readonly<Record<string, string>> = { origin: UI },
  method = 'POST',
): Promise<Answer> {
  const { port } = server.address() as AddressInfo;
  const asked = request({ host: '127.0.0.1', port, path, method, headers, agent: false });
  asked.end(body);
  const [response] = await once(asked, 'response');
  let text = '';
  for await (const piece of response) text += String(piece);
  const allowed = response.headers['access-control-allow-origin'];
  return { status: response.statusCode, allowed, text };
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

const PLAIN = {
  payloads: [{ metadata: { encoding: base64('json/plain') }, data: base64(`"${CANARY}"`) }],
};

describe('the codec server', () => {
  it("encrypts and decrypts for Temporal's UI, and for tools that are no pages", async () => {
    const encoded = await ask('/encode', JSON.stringify(PLAIN));
    expect(encoded).toMatchObject({ status: 200, allowed: UI });
    expect(encoded.text).toContain(base64('binary/encrypted'));
    expect(encoded.text).not.toContain(base64(CANARY).slice(0, 8));
    for (const headers of [{ origin: UI, 'x-namespace': 'default' }, {}]) {
      const decoded = await ask('/decode', encoded.text, headers);
      expect(decoded.status).toBe(200);
      expect(JSON.parse(decoded.text)).toEqual(PLAIN);
    }
    expect(await ask('/decode', '', { origin: UI }, 'OPTIONS')).toMatchObject({
      status: 204,
      allowed: UI,
    });
  });

  it.each([
    ['a page of somebody else', { origin: 'https://evil.example.com' }],
    ['a name that leads here', { host: 'evil.example.com' }],
  ])('gives nothing to %s', async (_what, headers) => {
    for (const method of ['POST', 'OPTIONS']) {
      const answer = await ask('/decode', JSON.stringify(PLAIN), headers, method);
      expect(answer).toMatchObject({ status: 403, allowed: undefined });
      expect(answer.text).not.toContain(base64(CANARY).slice(0, 8));
    }
  });

  it('says what it cannot decode', async () => {
    const metadata = {
      encoding: base64('binary/encrypted'),
      'encryption-key-id': base64('lost'),
    };
    const lost = await ask('/decode', JSON.stringify({ payloads: [{ metadata, data: '' }] }));
    expect(lost.status).toBe(400);
    expect(lost.text).toContain('lost');
    for (const body of [CANARY, `["${CANARY}"`, '{"payloads":7}']) {
      const answer = await ask('/decode', body);
      expect(answer.status).toBe(400);
      expect(answer.text).not.toContain(CANARY);
    }
    expect((await ask('/else', '')).status).toBe(404);
  });
});

describe('weldline codec', () => {
  it('serves until it is stopped', async () => {
    const command = await startCommand(['codec', '--origin', `${UI}/path`, '--port', '0'], {
      variables: { WELDLINE_PAYLOAD_KEYS: file },
    });
    await command.hasWritten(new RegExp(`Decoding for ${UI} at http://127.0.0.1:\\d+:`));
    command.signal('SIGINT');
    expect((await command.ended).status).toBe(0);
  });

  it('needs keys', async () => {
    const { status, stderr } = await runCommand(['codec', '--origin', UI]);
    expect(status).toBe(2);
    expect(stderr).toContain('Set WELDLINE_PAYLOAD_KEYS');
  });
});
