import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { setVariables } from '../../config/environment.ts';
import { readTemporalTarget } from '../../config/temporal-connection.ts';
import { makeCertificates } from '../harness/tls-proxy.ts';

const CANARY = 'canary-51c9';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-target-'));
  await makeCertificates(directory);
});
afterAll(() => rm(directory, { recursive: true }));

const at = (name: string): string => join(directory, name);

const certificates = (name: string, key = name): Record<string, string> => ({
  TEMPORAL_TLS_CLIENT_CERT_PATH: at(`${name}.pem`),
  TEMPORAL_TLS_CLIENT_KEY_PATH: at(`${key}.key`),
});

async function profiles(text: string): Promise<Record<string, string>> {
  await writeFile(at('temporal.toml'), text);
  return { TEMPORAL_CONFIG_FILE: at('temporal.toml') };
}

describe('readTemporalTarget', () => {
  it('has the defaults of the Temporal tools, and takes empty variables for none', () => {
    const variables = setVariables({
      TEMPORAL_ADDRESS: ' ',
      TEMPORAL_API_KEY: '',
      HOME: directory,
    });
    expect(readTemporalTarget(variables)).toEqual({
      address: 'localhost:7233',
      namespace: 'default',
    });
  });

  it('reads addresses, and TLS where there is a key or it is asked for', () => {
    const read = (variables: Record<string, string>) =>
      readTemporalTarget({ HOME: directory, ...variables });
    expect(read({ TEMPORAL_ADDRESS: 'temporal' })).toMatchObject({ address: 'temporal:7233' });
    expect(read({ TEMPORAL_ADDRESS: '[::1]:80' })).toMatchObject({ address: '[::1]:80' });
    expect(read({ TEMPORAL_TLS: 'true' }).tls).toEqual({});
    expect(read({ TEMPORAL_API_KEY: 'k' })).toMatchObject({ apiKey: 'k', tls: {} });
    expect(read({ TEMPORAL_API_KEY: 'k', TEMPORAL_TLS: 'false' }).tls).toBeUndefined();
    expect(read({ TEMPORAL_GRPC_META_X_TEAM: 'models' }).metadata).toEqual({ 'x-team': 'models' });
  });

  it('reads the profile that is named, and lets variables come first', async () => {
    const file = await profiles(
      '[profile.default]\naddress = "other:1"\n' +
        '[profile.prod]\naddress = "prod:7233"\nnamespace = "models"\n' +
        `[profile.prod.tls]\nclient_cert_path = "${at('client.pem')}"\n` +
        `client_key_path = "${at('client.key')}"\nserver_ca_cert_path = "${at('ca.pem')}"\n` +
        'server_name = "temporal.test"\n',
    );
    const variables = { ...file, TEMPORAL_PROFILE: 'prod', TEMPORAL_NAMESPACE: 'tests' };
    const { tls, ...rest } = readTemporalTarget(variables);
    expect(rest).toEqual({ address: 'prod:7233', namespace: 'tests' });
    expect(tls?.serverNameOverride).toBe('temporal.test');
    for (const [bytes, name] of [
      [tls?.serverRootCACertificate, 'ca.pem'],
      [tls?.clientCertPair?.crt, 'client.pem'],
      [tls?.clientCertPair?.key, 'client.key'],
    ] as const) {
      expect(Buffer.from(bytes ?? []).equals(await readFile(at(name))), name).toBe(true);
    }
  });

  it.each([
    ['an address with a scheme', { TEMPORAL_ADDRESS: 'https://t:7233' }, /without https/],
    ['a port that is none', { TEMPORAL_ADDRESS: 't:99999' }, /must be a host and port/],
    [
      'a key of two lines',
      { TEMPORAL_API_KEY: `${CANARY}\n${CANARY}` },
      /holds what no API key has/,
    ],
    ['a header of two lines', { TEMPORAL_GRPC_META_X: `${CANARY}\n${CANARY}` }, /The header "x"/],
    ['a file that is not there', { TEMPORAL_CONFIG_FILE: '/absent.toml' }, /cannot be read/],
  ])('refuses %s', (_what, variables, problem) => {
    refuses({ HOME: directory, ...variables }, problem);
  });

  it.each([
    ['no TOML', `[profile.default]\napi_key = "${CANARY}\n`, {}, /no TOML at line 2/],
    ['no profiles', `api_key = "${CANARY}"`, {}, /is not laid out as Temporal's profiles/],
    ['a number', '[profile.default]\naddress = 7233', {}, /is not laid out as Temporal's profiles/],
    [
      'an unknown profile',
      `[profile.a]\napi_key = "${CANARY}"`,
      { TEMPORAL_PROFILE: 'b' },
      /Profile 'b' not found/,
    ],
    [
      'a certificate given twice',
      '[profile.default.tls]\nclient_cert_path = "a"',
      { TEMPORAL_TLS_CLIENT_CERT_DATA: CANARY },
      /both client_cert_path and client_cert_data/,
    ],
  ])('refuses a file with %s', async (_what, text, variables, problem) => {
    refuses({ ...(await profiles(text)), ...variables }, problem);
  });

  it('refuses certificates that cannot work, and shows nothing of them', async () => {
    const only = (name: string) => ({ [name]: at('client.pem') });
    refuses(only('TEMPORAL_TLS_CLIENT_CERT_PATH'), /other half: TEMPORAL_TLS_CLIENT_KEY_PATH/);
    refuses(only('TEMPORAL_TLS_CLIENT_KEY_PATH'), /other half: TEMPORAL_TLS_CLIENT_CERT_PATH/);
    refuses(certificates('absent'), /cannot be read: ENOENT/);
    refuses(
      certificates('client', 'server'),
      /client\.pem and the key .*server\.key do not belong/,
    );
    refuses(certificates('expired-client'), /expired-client\.pem expired on/);
    refuses({ TEMPORAL_TLS_SERVER_CA_CERT_PATH: at('ca.key') }, /CA certificate .* is not in PEM/);
    refuses(
      {
        TEMPORAL_TLS_CLIENT_CERT_PATH: at('client.pem'),
        TEMPORAL_TLS_CLIENT_KEY_DATA: `-----BEGIN PRIVATE KEY-----\n${CANARY}\n-----END-----`,
      },
      /private key .* is not in PEM/,
    );
  });
});

function refuses(variables: Record<string, string>, problem: RegExp): void {
  let error: unknown;
  try {
    readTemporalTarget({ HOME: directory, ...variables });
  } catch (reason) {
    error = reason;
  }
  expect(error).toMatchObject({ code: 'config.invalid', message: expect.stringMatching(problem) });
  expect(inspect(error, { depth: 9 })).not.toContain(CANARY);
}
