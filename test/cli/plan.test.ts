import { mkdtemp, readdir, rm, stat, utimes } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeSyntheticMoe, type SyntheticMoe } from '../../bench/synthetic-moe.ts';
import { compileKernel } from '../../kernels/index.ts';
import { writeFiles } from '../doubles/merge-directories.ts';
import { fusedExpertsAdapter, tinyExperts } from '../doubles/tiny-experts.ts';
import { adapterFiles, baseFiles } from '../doubles/tiny-model.ts';
import { type CommandOptions, runCommand } from '../harness/command.ts';

/** Models of holes: gigabytes of weights that take no room, so what reads them is found out. */
let root: string;
let options: CommandOptions;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-plan-'));
  options = { cwd: root, variables: { WELDLINE_HOME: join(root, 'home') } };
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

const modelsOf = ({ base, adapter }: SyntheticMoe): string[] => [
  ...['--base', base],
  ...['--adapter', adapter],
];

async function planJson(model: SyntheticMoe, ...args: string[]) {
  const run = await runCommand(['plan', ...modelsOf(model), ...args, '--json'], options);
  expect(run.status, run.stderr).toBe(0);
  return JSON.parse(run.stdout);
}

describe('planning a large mixture of experts', () => {
  let model: SyntheticMoe;
  beforeAll(async () => {
    model = await makeSyntheticMoe(join(root, 'moe'), { layers: 6, experts: 16 });
  });

  it('has the right size and names, and takes no room', async () => {
    // Of each layer: 4 of attention, its 2 norms, 2 of the layer, the router, 3 of each expert.
    expect(model.tensors).toBe(6 * (9 + 16 * 3) + 3);
    expect(model.weightBytes).toBeGreaterThan(8e9);
    const files = await readdir(model.base);
    expect(files).toHaveLength(model.shards + 2);
    const stats = await Promise.all(files.map((file) => stat(join(model.base, file))));
    expect(stats.reduce((sum, { size }) => sum + size, 0)).toBeGreaterThan(model.weightBytes);
    expect(stats.reduce((sum, { blocks }) => sum + blocks * 512, 0)).toBeLessThan(2e6);
  });

  it('says what a merge would do, and leaves out the digest that takes reading the base', async () => {
    const plan = await planJson(model, '--tensors');
    expect(plan).toMatchObject({
      plan: null,
      summary: [
        { work: 'merged', tensors: 24 },
        { work: 'cast', tensors: 0 },
        { work: 'copied', tensors: model.tensors - 24 },
      ],
      diskBytes: expect.closeTo(model.weightBytes + 16 * 1024 * 1024, -6),
      threads: Math.min(availableParallelism() + 2, 8),
      windowBytes: 4 * 1024 * 1024,
      kernel: (await compileKernel()).kind,
    });
    expect(plan.memoryBytes).toBeLessThanOrEqual(200e6);
    expect(plan.unreadBytes).toBeGreaterThan(model.weightBytes);
    expect(plan.shards).toHaveLength(model.shards);
    expect(plan.sideFiles).toEqual([
      { input: 'base', path: 'config.json', size: expect.any(Number) },
    ]);
    const names = plan.tensors.map(({ name }: { name: string }) => name);
    expect(names).toContain('model.layers.5.mlp.experts.15.down_proj.weight');
    expect(plan.warnings).toEqual([expect.stringContaining('every lora_B is zero')]);

    const { stdout, stderr, status } = await runCommand(['plan', ...modelsOf(model)], options);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(
      /^plan digest: not computed \(\d+(\.\d)? GB unread; --digest computes it\)$/m,
    );
  });

  it('plans an adapter that changes every expert', async () => {
    const moe = { layers: 6, experts: 16, rank: 1, targets: 'all-linear' } as const;
    const all = await makeSyntheticMoe(join(root, 'all-linear'), moe);
    const { summary } = await planJson(all);
    expect(summary[0]).toMatchObject({ work: 'merged', tensors: 6 * (4 + 16 * 3) });
  });
});

describe('the digest of a plan', () => {
  it('is computed when asked for, and from then on remembered until a file is touched', async () => {
    const model = await makeSyntheticMoe(join(root, 'small'), {
      layers: 1,
      experts: 11,
      vocabulary: 16_000,
    });
    expect((await planJson(model)).plan).toBeNull();
    const asked = await planJson(model, '--digest');
    expect(asked).toMatchObject({ plan: expect.stringMatching(/^[0-9a-f]{64}$/), unreadBytes: 0 });
    expect(await planJson(model)).toEqual(asked);

    const shard = join(model.base, 'model-00001-of-00001.safetensors');
    const { size } = await stat(shard);
    expect(size).toBeGreaterThan(1e9);
    await utimes(shard, 1, 1);
    expect(await planJson(model)).toMatchObject({ plan: null, unreadBytes: size });
  });
});

describe('planning for a base that cuts its weights in another way', () => {
  it('says for each tensor which expert or which rows a delta is for', async () => {
    const fused = join(root, 'fused');
    await writeFiles(join(fused, 'base'), baseFiles(tinyExperts({ fused: true })));
    await writeFiles(join(fused, 'adapter'), adapterFiles(fusedExpertsAdapter()));
    const paths = ['--base', join(fused, 'base'), '--adapter', join(fused, 'adapter')];
    const run = await runCommand(['plan', ...paths, '--tensors'], options);
    expect(run.status, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/binding +adapter: exact, adapter: fused experts\n/);
    expect(run.stdout).toMatch(/merged +model\.layers\.0\.mlp\.experts\.down_proj /);
    expect(run.stdout).toContain('rows 64 to 127, expert 1 of 4');
  });
});
