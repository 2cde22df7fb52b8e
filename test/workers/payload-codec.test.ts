import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { EncryptionCodec } from '../../workers/payload-codec.ts';
import { type PayloadKeys, payloadKeysOf } from '../../workers/payload-keys.ts';

const CANARY = 'canary-7e1f';
const OLD = randomBytes(32).toString('base64');
const NEW = randomBytes(32).toString('base64');

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-keys-'));
});
afterAll(() => rm(directory, { recursive: true }));

async function keysFrom(text: string, mode = 0o600): Promise<PayloadKeys> {
  const file = join(directory, 'keys');
  await writeFile(file, text);
  await chmod(file, mode);
  return payloadKeysOf(readEnvironment({ WELDLINE_PAYLOAD_KEYS: file }));
}

function encodingOf(payload: Payload | undefined): string {
  return Buffer.from(payload?.metadata?.['encoding'] ?? []).toString();
}

async function sealed(codec: EncryptionCodec, value: unknown): Promise<Payload> {
  const [payload] = await codec.encode([defaultPayloadConverter.toPayload(value)]);
  if (payload === undefined) throw new Error('nothing was encoded');
  return payload;
}

async function opened(codec: EncryptionCodec, payload: Payload): Promise<unknown> {
  const [plain] = await codec.decode([payload]);
  return plain && defaultPayloadConverter.fromPayload(plain);
}

describe('EncryptionCodec', () => {
  it('hides a value and how it was encoded, each time differently, and gives it back', async () => {
    const codec = new EncryptionCodec(await keysFrom(`# of 2026\n\nnew ${NEW}\r\n`));
    const payloads = [await sealed(codec, { CANARY }), await sealed(codec, { CANARY })];
    const [first, second] = payloads.map(({ data }) => Buffer.from(data ?? []));
    expect(first).not.toEqual(second);
    expect(first?.includes(CANARY)).toBe(false);
    expect(encodingOf(payloads[0])).toBe('binary/encrypted');
    expect(inspect(payloads[0]?.metadata)).not.toContain('json');
    for (const payload of payloads) expect(await opened(codec, payload)).toEqual({ CANARY });
  });

  it('encrypts with the first key and reads all, also what was never encrypted', async () => {
    const old = new EncryptionCodec(await keysFrom(`old ${OLD}`));
    const both = new EncryptionCodec(await keysFrom(`new ${NEW}\nold ${OLD}`));
    const none = new EncryptionCodec(payloadKeysOf(readEnvironment({})));
    expect(await opened(both, await sealed(old, CANARY))).toBe(CANARY);
    expect(await opened(both, await sealed(none, CANARY))).toBe(CANARY);
    expect(encodingOf(await sealed(none, CANARY))).toBe('json/plain');
    await expect(opened(old, await sealed(both, CANARY))).rejects.toMatchObject({
      code: 'payload.key-missing',
      message: expect.stringContaining('"new"'),
    });
    await expect(opened(none, await sealed(old, CANARY))).rejects.toMatchObject({
      code: 'payload.key-missing',
      message: expect.stringContaining('Set WELDLINE_PAYLOAD_KEYS'),
    });
  });

  it('does not take a changed or cut payload, nor one of another key with its name', async () => {
    const codec = new EncryptionCodec(await keysFrom(`k ${OLD}`));
    const payload = await sealed(codec, CANARY);
    const data = Buffer.from(payload.data ?? []);
    const last = data.length - 1;
    const damaged = [0, 12, last].map((at) => {
      const changed = Buffer.from(data);
      changed[at] = (changed[at] ?? 0) ^ 1;
      return { ...payload, data: changed };
    });
    const cut = [0, 11, 20, last].map((bytes) => ({ ...payload, data: data.subarray(0, bytes) }));
    for (const wrong of [...damaged, ...cut]) {
      await expect(opened(codec, wrong)).rejects.toMatchObject({ code: 'payload.damaged' });
    }
    const other = new EncryptionCodec(await keysFrom(`k ${NEW}`));
    await expect(opened(other, payload)).rejects.toMatchObject({ code: 'payload.damaged' });
  });
});

describe('payloadKeysOf', () => {
  it('shows no key, and warns of a file that everybody can read', async () => {
    const keys = await keysFrom(`k ${OLD}`);
    expect(keys.warnings).toEqual([]);
    const shown = inspect([keys, new EncryptionCodec(keys)], { depth: 9, showHidden: true });
    expect(shown + JSON.stringify(keys)).not.toContain(OLD.slice(0, 10));
    expect((await keysFrom(`k ${OLD}`, 0o644)).warnings).toEqual([
      expect.stringMatching(/chmod 600/),
    ]);
  });

  it.each([
    ['', /holds no key/],
    ['# k\n', /holds no key/],
    [`k ${OLD}\nk ${NEW}`, /Line 2 of .* names k again/],
    [`k ${OLD} more`, /Line 1 of .* is no key/],
    [`two:words ${OLD}`, /Line 1 of .* is no key/],
    [`k ${OLD.slice(4)}`, /Line 1 of .* is no key/],
    [`k ${OLD.slice(0, -1)}!`, /Line 1 of .* is no key/],
    [OLD, /Line 1 of .* is no key/],
    ['x'.repeat(70_000), /is no file of payload keys/],
  ])('refuses %j without showing it', async (text, problem) => {
    const error: unknown = await keysFrom(text).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({
      code: 'config.invalid',
      message: expect.stringMatching(problem),
    });
    expect(inspect(error)).not.toContain(OLD.slice(4, 14));
  });

  it('says so when the file cannot be read', () => {
    const of = (file: string) => () =>
      payloadKeysOf(readEnvironment({ WELDLINE_PAYLOAD_KEYS: file }));
    expect(of(join(directory, 'absent'))).toThrow(/absent cannot be read \(ENOENT/);
    expect(of(directory)).toThrow(/is no file of payload keys/);
  });
});
