import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readFiles, writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, tinyAdapter } from '../doubles/tiny-model.ts';
import { type CommandOptions, runCommand, startCommand } from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { type ReleaseSetup, setUpRelease, writeRecipe } from '../harness/release-setup.ts';
import { waitFor } from '../harness/wait-for.ts';
import { startTestHub } from '../hub-server/test-hub.ts';

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));

let root: string;
let setup: ReleaseSetup;
let options: CommandOptions;
let models: readonly string[];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-merge-'));
  setup = await setUpRelease(root);
  options = { variables: setup.variables, cwd: root };
  models = ['--base', 'tiny', '--adapter', 'tone'];
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

describe('weldline merge', () => {
  it('merges, says so, and finds the merge when it is run again', async () => {
    const args = ['merge', ...models, '--output', 'merged'];
    const first = await runCommand(args, options);
    expect(first).toMatchObject({ status: 0, stderr: '' });
    expect(first.stdout).toMatch(/^Merged 4 of 19 tensors into .*\/merged \(\d+ kB, .* s\)\.\n$/);
    const files = await readdir(join(root, 'merged'));
    expect(files).toContain('weldline.json');
    const { mtimeMs } = await stat(join(root, 'merged', 'weldline.json'));
    const again = await runCommand(args, options);
    expect(again.stdout).toContain('holds this merge already; its files are intact');
    expect((await stat(join(root, 'merged', 'weldline.json'))).mtimeMs).toBe(mtimeMs);
    const others = await runCommand([...args, '--dtype', 'float32'], options);
    expect(others).toMatchObject({ status: 1, stdout: '' });
    expect(others.stderr).toContain('[output.exists]');
    expect((await readdir(root)).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it('streams a base from a hub: the same bytes, and no weights of it on this disk', async () => {
    const base = Object.fromEntries(await readFiles(setup.base));
    const hub = await startTestHub({ 'org/tiny': { main: base } });
    try {
      const streaming = {
        ...options,
        variables: { ...setup.variables, HF_ENDPOINT: hub.endpoint },
      };
      const args = ['merge', '--base', 'hf://org/tiny', '--adapter', 'tone', '--stream'];
      const streamed = await runCommand([...args, '--output', 'streamed'], streaming);
      expect(streamed).toMatchObject({ status: 0, stderr: '' });
      const fetched = await readdir(join(root, 'huggingface'), { recursive: true });
      expect(fetched.some((path) => path.endsWith('config.json'))).toBe(true);
      expect(fetched.filter((path) => path.endsWith('.safetensors'))).toEqual([]);
    } finally {
      await hub.close();
    }
    const [streamed, merged] = await Promise.all(
      ['streamed', 'merged'].map(async (name) => readFiles(join(root, name))),
    );
    for (const name of [...(merged ?? [])].map(([path]) => path)) {
      if (name !== 'weldline.json') expect(streamed?.get(name)).toEqual(merged?.get(name));
    }
    const args = ['merge', ...models, '--stream', '--output', 'nowhere'];
    const refused = await runCommand(args, options);
    expect(refused.stderr).toContain('--stream is for a base that is elsewhere');
  });

  it('prints one JSON object and nothing else with --json', async () => {
    const args = ['merge', ...models, '--output', 'merged-json', '--json', '--threads', '1'];
    const { status, stdout, stderr } = await runCommand(args, options);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({
      output: join(root, 'merged-json'),
      existed: false,
      tensors: { total: 19, merged: 4, replaced: 0 },
      files: expect.arrayContaining([expect.objectContaining({ path: 'config.json' })]),
    });
  });

  it('works through npm from any directory, with absolute paths', async () => {
    const output = join(root, 'by-npm');
    const paths = ['--base', setup.base, '--adapter', setup.adapter, '--output', output];
    const { status, stdout, stderr } = await runCommand(['merge', ...paths, '--json'], {
      ...options,
      cwd: REPOSITORY,
      program: ['npm', 'run', '--silent', 'weldline', '--'],
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ output });
    await runCommand(['merge', ...models, '--output', 'by-node'], options);
    expect(await readFiles(output)).toEqual(await readFiles(join(root, 'by-node')));
  });
});

describe('weldline plan', () => {
  it('shows what a merge would do and writes nothing', async () => {
    const before = await readdir(root);
    const { status, stdout } = await runCommand(['plan', ...models, '--tensors'], options);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^plan [0-9a-f]{64}$/m);
    expect(stdout).toMatch(/^merged +4 tensors/m);
    expect(stdout).toMatch(
      /^merged +model\.layers\.0\.self_attn\.q_proj\.weight +BF16 +\[64, 64\]/m,
    );
    expect(await readdir(root)).toEqual(before);
  });

  it('plans a recipe as it plans the same options, and says it in JSON', async () => {
    const recipe = await writeRecipe(setup);
    const byRecipe = JSON.parse((await runCommand(['plan', recipe, '--json'], options)).stdout);
    expect(byRecipe).toMatchObject({
      plan: expect.stringMatching(/^[0-9a-f]{64}$/),
      summary: [
        { work: 'merged', tensors: 4 },
        { work: 'cast', tensors: 0 },
        { work: 'copied', tensors: 15 },
      ],
      warnings: [],
    });
    const { shards } = byRecipe;
    expect(shards.map(({ file }: { file: string }) => file)).toEqual([
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
    ]);
  });
});

describe('several adapters', () => {
  const several = ['--base', 'tiny', '--adapter', 'tone', '--adapter', 'style'];
  beforeAll(async () => {
    await writeFiles(join(root, 'style'), adapterFiles(tinyAdapter({ rank: 9, seed: 3 })));
  });

  it('are added up as the options say, and as a recipe says the same', async () => {
    const how = ['--combine', 'linear', '--weights', '1,-0.5', '--json'];
    const merged = await runCommand(
      ['merge', ...several, ...how, '--output', 'merged-several'],
      options,
    );
    expect(merged).toMatchObject({ status: 0, stderr: '' });
    const manifest = JSON.parse(
      await readFile(join(root, 'merged-several', 'weldline.json'), 'utf8'),
    );
    expect(manifest.inputs.map(({ id, model }: Record<string, string>) => [id, model])).toEqual([
      ['base', 'tiny'],
      ['adapter-1', 'tone'],
      ['adapter-2', 'style'],
    ]);
    expect(manifest.options).toMatchObject({ weights: '1, -0.5' });

    const others = [{ id: 'style', model: join(root, 'style'), weight: -0.5 }];
    const recipe = await writeRecipe(setup, { others, combination: 'linear' });
    const planned = await runCommand(['plan', recipe, '--tensors'], options);
    // The random weights of these adapters are as large as the base's.
    const warning = /^warning: What the adapters add together is [^\n]*\n$/;
    expect(planned).toMatchObject({ status: 0, stderr: expect.stringMatching(warning) });
    // By their ids, whatever the order in the recipe is.
    expect(planned.stdout).toMatch(/style, r 9, alpha 18, × -1, tone, r 4, alpha 8, × 2/);
  });

  it('are thinned out and combined as the options say', async () => {
    const how = ['--combine', 'dare_ties', '--density', '0.5,0.25', '--seed', '3', '--json'];
    const merged = await runCommand(
      ['merge', ...several, ...how, '--majority-sign', 'frequency', '--output', 'thinned'],
      options,
    );
    expect(merged).toMatchObject({ status: 0, stderr: '' });
    const manifest = JSON.parse(await readFile(join(root, 'thinned', 'weldline.json'), 'utf8'));
    expect(manifest.options).toMatchObject({
      ...{ combination: 'dare_ties', weights: '1, 1', densities: '0.5, 0.25' },
      ...{ majority_sign: 'frequency', seed: 3 },
    });
    const ties = ['--combine', 'ties', '--density', '0.2', '--tensors'];
    const planned = await runCommand(['plan', ...several, ...ties], options);
    expect(planned.stdout).toMatch(/ties, adapter-1, r 4, alpha 8, × 2, weight 1, density 0.2/);
  });

  it('are cut to a rank by svd, which the plan and the manifest say', async () => {
    const how = ['--combine', 'svd', '--weights', '1,-0.5', '--rank', '3'];
    const planned = await runCommand(['plan', ...several, ...how, '--tensors'], options);
    expect(planned).toMatchObject({ status: 0 });
    expect(planned.stdout).toMatch(/adapter-2, r 9, alpha 18, × -1, combined by svd to r 3/);
    const merged = await runCommand(['merge', ...several, ...how, '--output', 'by-svd'], options);
    expect(merged).toMatchObject({ status: 0, stderr: '' });
    const manifest = await readFile(join(root, 'by-svd', 'weldline.json'), 'utf8');
    const { options: said } = JSON.parse(manifest);
    expect(said).toMatchObject({ combination: 'svd', weights: '1, -0.5', rank: 3 });
    const chance = ['--combine', 'peft_dare_ties', '--density', '0.5'];
    const refused = await runCommand(['plan', ...several, ...chance], options);
    expect(refused.status).toBe(2);
    expect(refused.stderr.replace(/\s+/g, ' ')).toContain('PEFT drops values by chance');
  });

  it.each([
    [[], /There are 2 adapters.*--combine linear.*--combine sequential/],
    [['--combine', 'linear', '--weights', '1'], /1 numbers for 2 adapters/],
    [['--combine', 'linear', '--weights', '1,half'], /not a list of numbers/],
    [['--combine', 'sum'], /linear, cat, sequential, svd, ties/],
    [['--combine', 'ties'], /--density: ties needs a density/],
    [['--combine', 'ties', '--density', '0.2,0.3,0.4'], /--density: there are 3 densities for 2/],
    [['--combine', 'ties', '--density', 'half'], /not a list of numbers/],
    [['--combine', 'ties', '--density', '1', '--seed', '1'], /--seed: ties chooses nothing/],
    [['--combine', 'dare_ties', '--density', '1', '--seed', ''], /--seed: the seed NaN/],
    [['--combine', 'linear', '--majority-sign', 'total'], /--majority-sign: linear elects no/],
    [['--combine', 'linear', '--rank', '4'], /--rank: linear takes no rank/],
    [['--combine', 'svd', '--rank', 'four'], /--rank: the rank NaN/],
    [['--combine', 'peft_dare_ties', '--density', '1'], /--combine: peft_dare_ties: PEFT drops/],
    [['--combine', 'peft_ties', '--density', '0.2,0.3'], /one density for all/],
  ])('are refused with %j', async (how, message) => {
    const run = await runCommand(['plan', ...several, ...how], options);
    expect(run.status).toBe(2);
    expect(run.stderr.replace(/\s+/g, ' ')).toMatch(message);
  });
});

describe('a quantised base', () => {
  it('is merged onto its dequantised weights where it is said so', async () => {
    const golden = join(REPOSITORY, 'test', 'golden', 'quantized', 'nf4_double-bf16');
    const inputs = ['--base', join(golden, 'base'), '--adapter', join(golden, 'adapter')];
    const unsaid = await runCommand(['plan', ...inputs], options);
    expect(unsaid).toMatchObject({ status: 1, stdout: '' });
    expect(unsaid.stderr).toContain('[checkpoint.quantized-base]');
    expect(unsaid.stderr).toContain('--merge-onto');
    const chosen = [...inputs, '--merge-onto', 'dequantized'];
    const plan = await runCommand(['plan', ...chosen, '--tensors'], options);
    expect(plan.stdout).toMatch(/^dequantized +5 tensors/m);
    expect(plan.stdout).toMatch(
      /^dequantized +model\.layers\.0\.self_attn\.k_proj\.weight +BF16 .*dequantized from nf4/m,
    );
    expect(plan.stdout).toMatch(
      /^merged +model\.layers\.0\.self_attn\.q_proj\.weight .*dequantized from nf4 +r 4/m,
    );
    expect(plan.stdout).toMatch(/^config +quantization_config is removed/m);
    const merged = await runCommand(['merge', ...chosen, '--output', 'onto-nf4'], options);
    expect(merged).toMatchObject({ status: 0, stderr: '' });
    expect(merged.stdout).toContain('Merged 2 of 12 tensors');
    const unknown = [...inputs, '--merge-onto', 'simulated_fp4', '--output', 'never'];
    expect(await runCommand(['merge', ...unknown], options)).toMatchObject({ status: 2 });
    const simulated = [...inputs, '--merge-onto', 'simulated_nf4', '--output', 'never'];
    const refused = await runCommand(['merge', ...simulated], options);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toContain('[checkpoint.quantized-base]');
  });

  it('is simulated from one of 16 bits, and the plan says how far apart the two are', async () => {
    const chosen = [...models, '--merge-onto', 'simulated_nf4'];
    const plan = await runCommand(['plan', ...chosen, '--tensors'], options);
    expect(plan).toMatchObject({ status: 0, stderr: '' });
    expect(plan.stdout).toMatch(
      /^base, NF4 +\d+\.\d\d % of the norm apart, measured on \d+ values/m,
    );
    expect(plan.stdout).toMatch(/mlp\.up_proj\.weight +BF16 .*as NF4 would make it/);
    const merged = await runCommand(['merge', ...chosen, '--output', 'onto-simulated'], options);
    expect(merged).toMatchObject({ status: 0, stderr: '' });
    const verified = await runCommand(['verify', 'onto-simulated'], options);
    expect(verified).toMatchObject({ status: 0, stderr: '' });
    const manifest = await readFile(join(root, 'onto-simulated', 'weldline.json'), 'utf8');
    expect(JSON.parse(manifest)).toMatchObject({
      options: { merge_onto: 'simulated_nf4' },
      nf4Distance: { relative: expect.closeTo(0.1, 1) },
    });
  });
});

describe('weldline verify', () => {
  it('accepts an intact checkpoint and names the file that is not', async () => {
    await runCommand(['merge', ...models, '--output', 'checked'], options);
    const intact = await runCommand(['verify', 'checked', '--json'], options);
    expect(intact).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(intact.stdout)).toMatchObject({
      isIntact: true,
      claims: expect.arrayContaining([
        { claim: 'files', status: 'verified', text: expect.stringContaining('4 files') },
        { claim: 'tensors', status: 'verified', text: expect.stringContaining('19 tensors') },
      ]),
    });
    const weights = join(root, 'checked', 'model-00001-of-00002.safetensors');
    const bytes = await readFile(weights);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    await writeFile(weights, bytes);
    const damaged = await runCommand(['verify', 'checked'], options);
    expect(damaged.status).toBe(1);
    expect(damaged.stdout).toMatch(/^files +FAILED .*model-00001-of-00002\.safetensors/m);
    expect(damaged.stderr).toContain('model-00001-of-00002.safetensors');
    expect(damaged.stderr).toContain('[verify.digest-mismatch]');
  });
});

describe('Ctrl-C', () => {
  let heavy: ReleaseSetup;
  beforeAll(async () => {
    heavy = await setUpRelease(
      join(root, 'heavy'),
      heavyModel({ layers: 4, shards: 2, extent: 2048, rank: 1536 }),
    );
  });

  it.each(['SIGINT', 'SIGTERM'] as const)(
    '%s stops a merge cleanly; the same command goes on',
    async (name) => {
      const output = join(root, `stopped-by-${name}`);
      const args = ['merge', '--base', heavy.base, '--adapter', heavy.adapter, '--output', output];
      const running = await startCommand([...args, '--threads', '1'], options);
      await hasBegunToWrite(output);
      running.signal(name);
      const { status, stdout, stderr } = await running.ended;
      expect({ status, stdout }).toEqual({ status: 130, stdout: '' });
      expect(stderr).toMatch(/^Stopped\. Run the same command to go on where it stopped\.$/m);
      expect(stderr).not.toContain('bug in weldline');
      const again = await runCommand(args, options);
      expect(again.status).toBe(0);
      expect((await readdir(root)).filter((entry) => entry.startsWith('.stopped'))).toEqual([]);
      expect((await runCommand(['verify', output], options)).status).toBe(0);
    },
  );

  it('stops verify without calling it a bug', async () => {
    const args = [...models, '--output', 'grown'];
    await runCommand(['merge', ...args], options);
    // So large, without taking room, that reading it lasts until the command is stopped.
    await truncate(join(root, 'grown', 'model-00001-of-00002.safetensors'), 40e9);
    for (let delayMs = 1_000; ; delayMs *= 2) {
      const running = await startCommand(['verify', 'grown'], options);
      await sleep(delayMs);
      running.signal('SIGINT');
      const { status, stdout, stderr } = await running.ended;
      // Struck before the command listened: a busy machine needs longer to load it.
      if (status === null) continue;
      expect({ status, stdout, stderr }).toEqual({ status: 130, stdout: '', stderr: 'Stopped.\n' });
      return;
    }
  });

  it('stops plan while a hub keeps it waiting', async () => {
    const hub = await startTestHub({ 'org/tiny': { main: { 'config.json': '{}' } } });
    try {
      hub.inject({ kind: 'stall', target: 'api', times: 100 });
      const variables = { ...setup.variables, HF_ENDPOINT: hub.endpoint };
      const args = ['plan', '--base', 'hf://org/tiny', '--adapter', 'tone', '--json'];
      const running = await startCommand(args, { ...options, variables });
      await waitFor('a request', async () => (hub.requests.length > 0 ? true : undefined));
      running.signal('SIGINT');
      const { status, stdout, stderr } = await running.ended;
      expect({ status, stdout, stderr }).toEqual({ status: 130, stdout: '', stderr: 'Stopped.\n' });
    } finally {
      await hub.close();
    }
  });
});

/** Waits until a merge has begun to write. */
async function hasBegunToWrite(output: string): Promise<void> {
  const name = output.slice(root.length + 1);
  await waitFor('the first bytes of the merge', async () => {
    const entry = (await readdir(root)).find((found) => found.startsWith(`.${name}.weldline-`));
    if (entry === undefined) return undefined;
    const journals = await readdir(join(root, entry, 'journals')).catch(() => []);
    return journals.length > 0 ? true : undefined;
  });
}
