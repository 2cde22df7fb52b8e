import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../doubles/tiny-model.ts';
import { type CommandOptions, runCommand } from '../harness/command.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

let root: string;
let hub: TestHub;
let options: CommandOptions;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-insight-'));
  const base = baseFiles(tinyBase());
  await writeFiles(join(root, 'base'), base);
  await writeFiles(join(root, 'one'), adapterFiles(tinyAdapter()));
  await writeFiles(join(root, 'two'), adapterFiles(tinyAdapter({ rank: 7, seed: 3 })));
  const files = Object.fromEntries([...base].map(([path, bytes]) => [path, Buffer.from(bytes)]));
  hub = await startTestHub({ 'org/tiny': { main: files } });
  options = {
    cwd: root,
    variables: {
      WELDLINE_HOME: join(root, 'home'),
      HF_HOME: join(root, 'cache'),
      HF_ENDPOINT: hub.endpoint,
    },
  };
});
afterAll(async () => {
  await hub.close();
  await rm(root, { recursive: true, force: true });
});

const ONE = ['--adapter', 'one'];
const TWO = [...ONE, '--adapter', 'two', '--combine', 'linear', '--weights', '0.01,0.01'];

async function plan(...args: string[]) {
  const { status, stdout, stderr } = await runCommand(['plan', ...args], options);
  expect(status, stderr).toBe(0);
  return { stdout, stderr };
}

async function planJson(...args: string[]) {
  return JSON.parse((await plan(...args, '--json')).stdout);
}

describe('what weldline plan measures', () => {
  it('is how much of the delta survives, over all and of each tensor', async () => {
    const { stdout, stderr } = await plan('--base', 'base', ...ONE, '--tensors');
    expect(stderr).toBe('');
    expect(stdout).toMatch(
      /^retention +99\.9 % of the delta survives rounding \(4 of 4 merged tensors measured\); least of model\.layers\.\d\.self_attn\.\w_proj\.weight, 99\.9 %$/m,
    );
    expect(stdout.match(/^merged .* retention 99\.9 %, size [\d.]+ %$/gm)).toHaveLength(4);
    expect(stdout).toMatch(
      /^size +what is added is [\d.]+ % of the norm of the weights it is added/m,
    );
    expect(stdout).not.toContain('cosine');

    const short = await planJson('--base', 'base', ...ONE);
    expect(short).toMatchObject({ retention: { merged: 4, measured: 4 }, conflicts: null });
    expect(short.retention.overall).toBeGreaterThan(0.99);
    expect(short.retention.relativeSize).toBeGreaterThan(0);
    expect(short.retention.worst).toHaveLength(4);
    expect(short.retention).not.toHaveProperty('tensors');
    const whole = await planJson('--base', 'base', ...ONE, '--tensors');
    const { tensors, ...rest } = whole.retention;
    expect(rest).toEqual(short.retention);
    expect(tensors).toHaveLength(4);
  });

  it('is whether several adapters agree', async () => {
    const { stdout, stderr } = await plan('--base', 'base', ...TWO);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^adapter-1 +adds to 4 tensors +norm \d/m);
    expect(stdout).toMatch(
      /^adapter-1 and adapter-2: 4 tensors in common, cosine -?0\.0\d, [45]\d\.\d % of signs opposed$/m,
    );
    const { conflicts } = await planJson('--base', 'base', ...TWO, '--tensors');
    expect(conflicts).toMatchObject({ comparable: 4, measured: 4, leftOut: 0 });
    expect(conflicts.layers.map(({ layer }: { layer: string }) => layer)).toEqual([
      'model.layers.0',
      'model.layers.1',
    ]);
    expect(conflicts.tensors).toHaveLength(4);
  });

  it('warns of adapters that fight', async () => {
    const fight = ['--adapter', 'one', '--adapter', 'one', '--combine', 'linear'];
    const args = ['--base', 'base', ...fight, '--weights', '0.01,-0.005'];
    const { stdout, stderr } = await plan(...args);
    expect(stderr).toMatch(/^warning: Adapters "adapter-1" and "adapter-2" fight: /m);
    expect(stdout).toContain('cosine -1.00, 100.0 % of signs opposed');
    const { warnings } = await planJson(...args);
    expect(warnings).toEqual([expect.stringContaining(' fight: ')]);
  });

  it('warns of adapters that are large beside the weights, where there are several', async () => {
    const example = join(import.meta.dirname, '../../examples/tiny');
    const one = [
      '--base',
      join(example, 'base'),
      '--adapter',
      join(example, 'adapters/calculator'),
    ];
    const two = [...one, '--adapter', join(example, 'adapters/extractor'), '--combine', 'linear'];
    const { stdout, stderr } = await plan(...two);
    expect(stdout).toMatch(/^size +what is added is 77 % of the norm /m);
    expect(stderr).toMatch(/^warning: What the adapters add together is 77 % of the norm /m);
    expect((await plan(...two, '--weights', '0.5,0.5')).stderr).toContain(
      'add together is 39 % of',
    );
    expect((await plan(...two, '--weights', '0.05,0.05')).stderr).toBe('');
    expect((await plan(...one)).stderr).toBe('');
  });

  it('of a base on a hub reads no weight without being asked, and says so', async () => {
    const remote = ['--base', 'hf://org/tiny', ...TWO];
    const before = hub.contentBytes();
    const { stdout } = await plan(...remote);
    const unasked = hub.contentBytes() - before;
    expect(stdout).toMatch(/^retention +not measured: the base is on a hub \(--retention reads /m);
    expect(stdout).toContain('4 tensors in common');
    const asked = await planJson(...remote, '--retention');
    expect(hub.contentBytes() - before - unasked).toBeGreaterThan(unasked);
    const local = await planJson('--base', 'base', ...TWO);
    expect(asked.retention).toEqual(local.retention);
    expect(asked.conflicts).toEqual(local.conflicts);
    expect((await planJson(...remote)).retention).toBeNull();
  });
});
