import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Diagnosis, DoctorCheck } from '../../tools/doctor.ts';
import { installDirectory } from '../../tools/llama-cpp-release.ts';
import { type CommandResult, runCommand } from '../harness/command.ts';
import { TEST_TOOLS, testLlamaCpp, testPythonTools } from '../tools/test-tools.ts';

const RECIPE = `
name: doctors-recipe
version: 1.0.0
base: { model: ./base }
adapters:
  - { id: support, model: ./adapter }
`;
const CONVERTING = `${RECIPE}
convert:
  - gguf: { quantization: [Q8_0, IQ2_XS], imatrix: { calibration: ./text }, split: 1GB }
  - awq: { calibration: ./calibration.jsonl }
evaluate:
  suites:
    - { id: support, data: ./evals.jsonl }
  endpoint: { url: 'http://localhost:8000/v1', models: { base: base } }
`;

let root: string;
let home: string;
/** A directory for PATH in which there is nothing. */
let empty: string;
let variables: Record<string, string>;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-doctor-'));
  empty = join(root, 'empty');
  await mkdir(empty);
  await writeFile(join(root, 'plain.yaml'), RECIPE);
  await writeFile(join(root, 'converting.yaml'), CONVERTING);
  await testLlamaCpp();
});
afterAll(async () => {
  await rm(root, { recursive: true });
});
beforeEach(async () => {
  home = await mkdtemp(join(root, 'home-'));
  variables = { HOME: home, WELDLINE_HOME: join(home, 'weldline'), PATH: empty };
});

const doctor = (...args: string[]): Promise<CommandResult> =>
  runCommand(['doctor', ...args], { variables, cwd: root });

async function diagnosis(...args: string[]): Promise<Diagnosis & { get(id: string): DoctorCheck }> {
  const { status, stdout, stderr } = await doctor(...args, '--json');
  expect(stderr).toBe('');
  const diagnosed = JSON.parse(stdout) as Diagnosis;
  expect(status).toBe(diagnosed.ok ? 0 : 1);
  const get = (id: string) => {
    const found = diagnosed.checks.find((check) => check.id === id);
    if (found === undefined) throw new Error(`there is no ${id} among the checks`);
    return found;
  };
  return { ...diagnosed, get };
}

describe('weldline doctor', () => {
  it('asks nothing of an empty home, and leaves it empty', async () => {
    const { ok, checks, get } = await diagnosis();
    expect(ok).toBe(true);
    expect(checks.map(({ id }) => id)).toEqual([
      ...['node', 'kernel', 'temporal', 'llama.cpp', 'python', 'disk', 'gpu', 'hub-token'],
    ]);
    expect(get('node')).toMatchObject({ state: 'ok', needed: true, path: process.execPath });
    expect(get('temporal')).toMatchObject({ state: 'ok', version: expect.stringMatching(/^\d/) });
    expect(get('llama.cpp')).toMatchObject({ state: 'missing', needed: false });
    expect(get('python')).toMatchObject({ state: 'missing', needed: false });
    expect(get('disk').version).toMatch(/ GB free$/);
    expect(await readdir(home)).toEqual([]);
  });

  it('asks nothing for a recipe that only merges', async () => {
    const { status, stdout } = await doctor('plain.yaml');
    expect(stdout).toMatch(/^- {3}llama\.cpp/m);
    expect(stdout).toMatch(/All that this recipe needs is here\.\n$/);
    expect(status).toBe(0);
  });

  it('says what publishing and signing lack, without asking any server', async () => {
    const targets = [{ hub: { repo: 'acme/tone' } }, { mlflow: { model: 'tone' } }];
    const publish = JSON.stringify([...targets, { directory: { path: './releases' } }]);
    await writeFile(join(root, 'publishing.yaml'), `${RECIPE}sign: key\npublish: ${publish}\n`);
    const lacking = await diagnosis('publishing.yaml');
    expect(lacking.ok).toBe(false);
    expect(lacking.get('signing').mend).toContain('WELDLINE_SIGNING_KEY');
    const mended = lacking.checks.filter(({ id }) => id === 'target').map(({ mend }) => mend);
    expect(mended).toEqual([
      expect.stringContaining('HF_TOKEN'),
      expect.stringContaining('MLFLOW_TRACKING_URI'),
      undefined,
    ]);
    const key = join(root, 'key.pem');
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    await writeFile(key, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    Object.assign(variables, { HF_TOKEN: 'hf_canary', WELDLINE_SIGNING_KEY: key });
    Object.assign(variables, { MLFLOW_TRACKING_URI: 'http://127.0.0.1:9' });
    const { status, stdout } = await doctor('publishing.yaml');
    expect(status).toBe(0);
    expect(stdout).not.toContain('hf_canary');
  });

  it('says what a recipe lacks, why it is needed, and what mends it', async () => {
    const { status, stdout } = await doctor('converting.yaml');
    expect(status).toBe(1);
    expect(stdout).toMatch(/^missing {2}llama\.cpp +to convert to GGUF/m);
    expect(stdout).toMatch(
      /^missing {2}Python tools +to convert to GGUF, to quantize with AWQ, to evaluate/m,
    );
    expect(stdout.split('\n').slice(-4)).toEqual([
      'Not all that this recipe needs is here. What mends it:',
      expect.stringMatching(/^ {2}weldline tools install gguf +llama\.cpp, Python tools$/),
      expect.stringMatching(/^ {2}install a C\+\+ compiler .* llama-imatrix$/),
      '',
    ]);
  });

  it('finds all of it on a machine that has it', async () => {
    const python = await testPythonTools();
    // The compiler is wherever the machine has it.
    variables = { ...variables, WELDLINE_TOOLS: TEST_TOOLS, PATH: process.env['PATH'] ?? '' };
    const { ok, get } = await diagnosis('converting.yaml');
    expect(get('llama.cpp')).toMatchObject({
      state: 'ok',
      needed: true,
      version: 'v0.4.0 (80fb11ac)',
      path: installDirectory(TEST_TOOLS),
    });
    expect(get('python')).toMatchObject({ state: 'ok', needed: true, path: python.python });
    expect(get('python').version).toContain(`torch ${python.versions['torch']}`);
    expect(get('llama-imatrix').state).toBe('ok');
    expect(ok).toBe(true);
  });

  it('shows no secret, only that there is one', async () => {
    const secrets = ['hf_doctorssecret', 'sk-doctorssecret'];
    const [HF_TOKEN = '', WELDLINE_ENDPOINT_KEY = ''] = secrets;
    const without = await diagnosis('converting.yaml');
    expect(without.get('hub-token').state).toBe('missing');
    expect(without.get('endpoint-key').state).toBe('missing');
    variables = { ...variables, HF_TOKEN, WELDLINE_ENDPOINT_KEY };
    const { get } = await diagnosis('converting.yaml');
    expect(get('hub-token').state).toBe('ok');
    expect(get('endpoint-key').state).toBe('ok');
    for (const args of [['converting.yaml'], ['converting.yaml', '--json']]) {
      const { stdout, stderr } = await doctor(...args);
      for (const secret of secrets) expect(stdout + stderr).not.toContain(secret);
    }
  });

  it('says why a Python that is set is passed over, where another one is used', async () => {
    const bare = join(home, 'bare');
    execFileSync('python3', ['-m', 'venv', '--without-pip', bare]);
    variables = { ...variables, WELDLINE_PYTHON: join(bare, 'bin', 'python') };
    variables['WELDLINE_TOOLS'] = TEST_TOOLS;
    const { state, note } = (await diagnosis('converting.yaml')).get('python');
    expect(state).toBe('ok');
    expect(note).toMatch(/to convert to GGUF.* WELDLINE_PYTHON: .* has no torch/);
  });

  it('finds what is set and cannot be used, whether or not a recipe needs it', async () => {
    variables['WELDLINE_LLAMA_CPP'] = join(root, 'nowhere');
    const { ok, get } = await diagnosis('plain.yaml');
    expect(get('llama.cpp')).toMatchObject({
      state: 'unusable',
      needed: true,
      note: expect.stringMatching(/^WELDLINE_LLAMA_CPP: .*nowhere has no llama-quantize/),
    });
    expect(ok).toBe(false);
  });

  it("finds what a user's own llama.cpp lacks for this recipe", async () => {
    const own = join(home, 'llama.cpp');
    await mkdir(join(own, 'conversion'), { recursive: true });
    await writeFile(join(own, 'convert_hf_to_gguf.py'), '');
    const version = 'version: 0.4.0 (build 7001, commit 80fb11a)';
    for (const name of ['llama-quantize', 'llama-cli']) {
      await writeFile(join(own, name), `#!/bin/sh\necho '${version}'\n`, { mode: 0o755 });
    }
    variables['WELDLINE_LLAMA_CPP'] = own;
    const { get } = await diagnosis('converting.yaml');
    expect(get('llama.cpp')).toMatchObject({
      state: 'unusable',
      version: 'v0.4.0 (b7001-80fb11a)',
      note: expect.stringContaining('no llama-server'),
      mend: 'build llama-server beside it, or unset WELDLINE_LLAMA_CPP',
    });
    expect(get('llama-imatrix')).toMatchObject({
      state: 'missing',
      mend: expect.stringContaining('--target llama-imatrix'),
    });
  });

  it('finds an installed llama.cpp that does not load', async () => {
    const tools = join(home, 'tools');
    const { directory } = await testLlamaCpp();
    execFileSync('cp', ['-r', directory, join(root, 'copy')]);
    await mkdir(tools);
    await symlink(join(root, 'copy'), installDirectory(tools));
    const libraries = join(root, 'copy/node_modules/@node-llama-cpp');
    const files = await readdir(libraries, { recursive: true });
    const library = files.find((file) => /libllama\.[^/]*(so|dylib)$/.test(file)) ?? '';
    await truncate(join(libraries, library), 1_000_000);
    variables['WELDLINE_TOOLS'] = tools;
    const { get } = await diagnosis('converting.yaml');
    expect(get('llama.cpp')).toMatchObject({
      state: 'unusable',
      mend: 'weldline tools install gguf',
    });
  });

  it('refuses a recipe that is not there', async () => {
    const { status, stderr } = await doctor('missing.yaml');
    expect(stderr).toContain('[recipe.not-found]');
    expect(status).toBe(2);
  });
});

describe('weldline tools install', () => {
  const install = (...args: string[]) =>
    runCommand(['tools', 'install', ...args], { variables, cwd: root });

  it('refuses names that it does not know, with the nearest', async () => {
    const wrong = await install('gguf', 'evla');
    expect(wrong.stderr).toMatch(
      /no tools for "evla"; did you mean eval\? Give any of gguf, awq, ev/,
    );
    expect(wrong.status).toBe(2);
    expect((await install('gptq')).stderr).toContain('did you mean awq?');
    expect((await install()).status).toBe(2);
    expect(await readdir(home)).toEqual([]);
  });

  it('says what is missing to install with', async () => {
    const { status, stdout } = await install('gguf', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'tool.not-found' } });
    expect(stdout).toContain('needs npm');
    expect(status).toBe(1);
  });

  it('has nothing to do where all is there', async () => {
    const python = await testPythonTools();
    const llamaCpp = await testLlamaCpp();
    variables['WELDLINE_TOOLS'] = TEST_TOOLS;
    const { status, stdout, stderr } = await install('gguf', 'awq', 'eval', '--json');
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({ llamaCpp, python });
    expect(status).toBe(0);
    const { stdout: text } = await install('gguf');
    expect(text.split('\n')[0]).toBe(`llama.cpp v0.4.0 (80fb11ac) in ${llamaCpp.directory}`);
  });

  it('writes a line for each step where there is no terminal, and what went wrong', async () => {
    const npm = execFileSync('which', ['npm'], { encoding: 'utf8' }).trim();
    Object.assign(variables, {
      PATH: dirname(npm),
      npm_config_registry: 'http://127.0.0.1:9/',
      npm_config_cache: join(home, 'cache'),
      npm_config_fetch_retries: '0',
    });
    const { status, stderr } = await install('gguf');
    expect(stderr).toMatch(
      /^Installing llama\.cpp v0\.4\.0 with npm .*\nerror: .* could not be ins/,
    );
    expect(stderr).toContain('npm does not reach its registry');
    expect(status).toBe(1);
  });
});
