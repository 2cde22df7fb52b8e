import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { runCommand } from '../harness/command.ts';

const GOLDEN = fileURLToPath(new URL('../golden', import.meta.url));
const BASE = join(GOLDEN, 'cases', 'plain-fp32', 'base');
const MLX = join(GOLDEN, 'formats', 'mlx-lora');

it('names the format of an adapter', async () => {
  const variables = { WELDLINE_HOME: join(await temporaryDirectory(), 'home') };
  const run = await runCommand(['plan', '--base', BASE, '--adapter', MLX], { variables });
  expect(run.status, run.stderr).toBe(0);
  expect(run.stdout).toMatch(/binding +adapter: exact \(format mlx\)/);
});

it('says which adapters an adapter was trained on', async () => {
  const root = await temporaryDirectory();
  const lower = join(root, 'lower');
  const upper = join(root, 'upper');
  await mkdir(upper);
  await cp(MLX, lower, { recursive: true });
  await cp(join(MLX, 'adapters.safetensors'), join(upper, 'adapters.safetensors'));
  const config = { model: '../lower', lora_parameters: { rank: 4, scale: 10 } };
  await writeFile(join(upper, 'adapter_config.json'), JSON.stringify(config));
  const variables = { WELDLINE_HOME: join(root, 'home') };
  const plan = (...args: string[]) => runCommand(['plan', '--base', BASE, ...args], { variables });
  const alone = await plan('--adapter', upper);
  expect(alone.status).not.toBe(0);
  expect(alone.stderr).toContain(`- {id: below-1, model: ${lower}}`);
  const both = await plan('--adapter', lower, '--adapter', upper, '--combine', 'sequential');
  expect(both.status, both.stderr).toBe(0);
});
