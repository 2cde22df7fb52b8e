import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { childVariables, readEnvironment, type Variables } from '../../config/environment.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-environment-'));
});
afterAll(async () => {
  await rm(directory, { recursive: true });
});

/** Without the token this machine's user may have. */
function read(variables: Variables) {
  return readEnvironment({ HF_HOME: directory, ...variables });
}

describe('readEnvironment', () => {
  it('has a default for everything', () => {
    const { hub, ...rest } = readEnvironment({});
    expect(hub.endpoint).toBe('https://huggingface.co');
    expect(hub.cacheDirectory).toBe(join(homedir(), '.cache/huggingface/hub'));
    expect(rest).toEqual({
      home: join(homedir(), '.local/share/weldline'),
      toolsDirectory: join(homedir(), '.local/share/weldline/tools'),
      temporalConfigured: false,
      worker: { storage: 'shared', host: hostname(), hostTimeoutMs: 600_000, slots: {} },
      dockerConfig: join(homedir(), '.docker'),
      mlflow: {},
      s3: {},
      logLevel: 'info',
      color: true,
      ci: false,
    });
  });

  it('reads what is set', () => {
    const environment = read({
      WELDLINE_HOME: '~/w',
      HF_ENDPOINT: 'http://localhost:8080/hub//',
      HF_HUB_CACHE: '/cache/hub',
      HF_TOKEN: ' hf_abc\n',
      TEMPORAL_ADDRESS: 'temporal:7233',
      WELDLINE_THREADS: '3',
      WELDLINE_MEMORY_BUDGET: '4GiB',
      WELDLINE_STALL_TIMEOUT: '90',
      WELDLINE_LOG_LEVEL: 'DEBUG',
      NO_COLOR: '1',
      CI: 'true',
      WELDLINE_PYTHON: 'python3.12',
      WELDLINE_TEMPORAL_CLI: '~/bin/temporal',
      WELDLINE_SIGNING_KEY: '~/keys/release.pem',
      WELDLINE_SIGNING_PASSPHRASE: 'hf_abc',
      DOCKER_CONFIG: '/docker',
      MLFLOW_TRACKING_URI: 'http://mlflow:5000',
      MLFLOW_TRACKING_USERNAME: 'ci',
      MLFLOW_TRACKING_PASSWORD: 'hf_abc',
      OLLAMA_HOST: '10.0.0.7:11434',
      AWS_ENDPOINT_URL: 'http://minio:9000/',
      WELDLINE_STORAGE: 'local',
      WELDLINE_HOST: 'gpu-7.example',
      WELDLINE_HOST_TIMEOUT: '90',
      WELDLINE_DEPLOYMENT: 'weldline',
      WELDLINE_BUILD_ID: '0.1.0-a',
      WELDLINE_MERGE_SLOTS: '2',
      WELDLINE_METRICS_ADDRESS: '127.0.0.1:9464',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318/',
      WELDLINE_PAYLOAD_KEYS: '~/keys/payload',
    });
    expect(environment).toEqual({
      home: join(homedir(), 'w'),
      toolsDirectory: join(homedir(), 'w/tools'),
      hub: {
        endpoint: 'http://localhost:8080/hub',
        cacheDirectory: '/cache/hub',
        token: expect.anything(),
      },
      temporalConfigured: true,
      worker: {
        storage: 'local',
        host: 'gpu-7.example',
        hostTimeoutMs: 90_000,
        deployment: { name: 'weldline', buildId: '0.1.0-a' },
        slots: { merge: 2 },
        metricsAddress: '127.0.0.1:9464',
        tracesEndpoint: 'http://collector:4318/v1/traces',
      },
      payloadKeysFile: join(homedir(), 'keys/payload'),
      threads: 3,
      memoryBudgetBytes: 4 * 2 ** 30,
      stallTimeoutMs: 90_000,
      signing: { keyFile: join(homedir(), 'keys/release.pem'), passphrase: expect.anything() },
      dockerConfig: '/docker',
      mlflow: {
        trackingUri: 'http://mlflow:5000',
        username: 'ci',
        password: expect.anything(),
      },
      ollamaEndpoint: 'http://10.0.0.7:11434',
      s3: { endpoint: 'http://minio:9000' },
      logLevel: 'debug',
      color: false,
      ci: true,
      python: 'python3.12',
      temporalCli: join(homedir(), 'bin/temporal'),
    });
    expect(environment.hub.token?.reveal()).toBe('hf_abc');
    expect(inspect(environment, { depth: 9 })).not.toContain('hf_abc');
    expect(JSON.stringify(environment)).not.toContain('hf_abc');
  });

  it.each([
    [{ HF_HOME: '~/hf' }, join(homedir(), 'hf/hub')],
    [{ HF_HOME: '$DATA/hf', DATA: '/data' }, '/data/hf/hub'],
    [{ HF_HOME: '/hf', HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
    [{ HF_HOME: '/hf', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '$D/new', D: '/d' }, '/d/new'],
    [{ HF_HUB_CACHE: ['$', '{DATA}/hub'].join(''), DATA: '/d' }, '/d/hub'],
    [{ HF_HUB_CACHE: '/x/$ABSENT' }, '/x/$ABSENT'],
  ])('finds the cache of the official clients for %j', (variables, cacheDirectory) => {
    expect(readEnvironment({ HF_TOKEN: 'x', ...variables }).hub.cacheDirectory).toBe(
      cacheDirectory,
    );
  });

  it('follows the XDG directories, absolute ones only', () => {
    expect(read({ XDG_DATA_HOME: '/data' }).home).toBe('/data/weldline');
    expect(read({ XDG_DATA_HOME: 'data' }).home).toBe(join(homedir(), '.local/share/weldline'));
    expect(readEnvironment({ XDG_CACHE_HOME: '/c' }).hub.cacheDirectory).toBe('/c/huggingface/hub');
  });

  it.each(['TEMPORAL_ADDRESS', 'TEMPORAL_PROFILE', 'TEMPORAL_CONFIG_FILE'])(
    'takes %s for a Temporal server of the user, and an empty one for none',
    (name) => {
      expect(read({ [name]: 'x' }).temporalConfigured).toBe(true);
      expect(read({ [name]: ' ' }).temporalConfigured).toBe(false);
    },
  );

  it('finds the token: variable, then file', async () => {
    const home = join(directory, 'hf');
    await mkdir(home);
    expect(read({ HF_HOME: home }).hub.token).toBeUndefined();
    await writeFile(join(home, 'token'), 'from-home\n');
    await writeFile(join(home, 'other'), 'from-other');
    const tokenPath = join(home, 'other');
    expect(read({ HF_HOME: home }).hub.token?.reveal()).toBe('from-home');
    expect(read({ HF_HOME: home, HF_TOKEN_PATH: tokenPath }).hub.token?.reveal()).toBe(
      'from-other',
    );
    expect(read({ HF_HOME: home, HF_TOKEN: 'variable' }).hub.token?.reveal()).toBe('variable');
  });

  it('says so when the token file cannot be read', async () => {
    const path = join(directory, 'a-directory');
    await mkdir(path);
    expect(() => read({ HF_TOKEN_PATH: path })).toThrow(`token file ${path} cannot be read`);
    await chmod(path, 0o700);
  });

  it.each([
    ['HF_TOKEN', 'two words', /no token has/],
    ['HF_ENDPOINT', 'huggingface.co', /is not a URL/],
    ['HF_ENDPOINT', 'ftp://host', /is not a URL/],
    ['HF_ENDPOINT', 'https://me:pw@host', /holds credentials/],
    ['WELDLINE_THREADS', '0', /whole number from 1 to 1024/],
    ['WELDLINE_THREADS', '2.5', /whole number from 1 to 1024/],
    ['WELDLINE_STALL_TIMEOUT', '0', /whole seconds from 1 to 86400/],
    ['WELDLINE_STALL_TIMEOUT', '15m', /whole seconds from 1 to 86400/],
    ['WELDLINE_MEMORY_BUDGET', 'lots', /a size such as 4GB/],
    ['WELDLINE_LOG_LEVEL', 'loud', /one of trace, debug, info, warn, error/],
    ['WELDLINE_HOME', 'a\0b', /NUL/],
    ['WELDLINE_STORAGE', 'nfs', /shared or local/],
    ['WELDLINE_HOST', 'a host', /letters, digits/],
    ['WELDLINE_HOST_TIMEOUT', '0', /a whole number from 1 to 604800/],
    ['WELDLINE_GPU_SLOTS', '-1', /a whole number from 1 to 256/],
    ['WELDLINE_METRICS_ADDRESS', '9464', /127.0.0.1:9464/],
    ['WELDLINE_METRICS_ADDRESS', 'localhost:99999', /127.0.0.1:9464/],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', /a URL such as/],
    ['OLLAMA_HOST', 'a host', /a host such as 127.0.0.1:11434/],
    ['OLLAMA_HOST', 'unix:///run/ollama', /a host such as 127.0.0.1:11434/],
  ])('refuses %s=%j', (name, value, problem) => {
    expect(() => read({ [name]: value })).toThrow(problem);
    expect(() => read({ [name]: value })).toThrow(`The environment variable ${name} `);
    expect(() => read({ [name]: value })).toThrow(
      expect.objectContaining({ code: 'config.invalid', details: { variable: name } }),
    );
  });

  it.each([
    ['10.0.0.7', 'http://10.0.0.7:11434'],
    ['10.0.0.7:80', 'http://10.0.0.7:80'],
    ['https://ollama.example.com/x', 'https://ollama.example.com/x'],
  ])('reads OLLAMA_HOST=%s as Ollama does', (value, url) => {
    expect(read({ OLLAMA_HOST: value }).ollamaEndpoint).toBe(url);
  });

  it.each([
    ['', false],
    ['0', false],
    ['False', false],
    ['1', true],
    ['github', true],
  ])('reads CI=%j as %j', (value, ci) => {
    expect(read({ CI: value }).ci).toBe(ci);
  });
});

describe('childVariables', () => {
  it('passes the environment on, less credentials and Temporal settings', () => {
    const variables = {
      PATH: '/bin',
      HF_TOKEN: 'x',
      HUGGING_FACE_HUB_TOKEN: 'x',
      AWS_CONTAINER_AUTHORIZATION_TOKEN: 'x',
      OTEL_EXPORTER_OTLP_HEADERS: 'x',
      OTEL_EXPORTER_OTLP_TRACES_HEADERS: 'x',
      TEMPORAL_API_KEY: 'x',
      TEMPORAL_ADDRESS: 'x',
      UNSET: undefined,
    };
    expect(childVariables({ A: '1' }, variables)).toEqual({ PATH: '/bin', A: '1' });
  });
});
