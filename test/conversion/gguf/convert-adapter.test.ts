import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../../conversion/convert.ts';
import type { ConversionTools, ModelFacts } from '../../../conversion/convert-options.ts';
import { readGgufAdapter } from '../../../conversion/gguf/gguf-adapter.ts';
import { readGguf } from '../../../conversion/gguf/gguf-model.ts';
import { preflightConversions } from '../../../conversion/preflight-conversions.ts';
import { tryGguf } from '../../../tools/gguf/try-gguf.ts';
import { ANSWER, BASE, CALCULATOR, optionsFor, QUESTION, testTools } from './tiny-model.ts';

const STEP = {
  kind: 'gguf-adapter',
  id: 'gguf-adapter-calculator',
  adapter: 'calculator',
} as const;

let tools: ConversionTools;
let root: string;

beforeAll(async () => {
  tools = await testTools();
  root = await mkdtemp(join(tmpdir(), 'weldline-adapter-'));
});
afterAll(async () => await rm(root, { recursive: true, force: true }));

/** The calculator with another configuration. */
async function withConfig(changes: Readonly<Record<string, unknown>>): Promise<string> {
  const copy = await mkdtemp(join(root, 'adapter-'));
  await cp(CALCULATOR, copy, { recursive: true });
  const file = join(copy, 'adapter_config.json');
  const config = JSON.parse(await readFile(file, 'utf8'));
  await writeFile(file, JSON.stringify({ ...config, ...changes }));
  return copy;
}

describe('an adapter as GGUF', () => {
  it('has its rank-stabilised strength baked in, and does on the base what it was trained for', async () => {
    // The same adapter in other words: alpha over the root of 8 is what 16 over 8 was.
    const calculator = await withConfig({ use_rslora: true, lora_alpha: 16 / Math.sqrt(8) });
    const place = { root, merged: BASE };
    const options = { ...optionsFor(STEP, place, tools), adapters: { calculator } };
    const made = await convert(options);
    expect(made.manifest).toMatchObject({
      kind: 'gguf-adapter',
      checks: [expect.stringMatching(/^All 21 pairs .* alpha 16\.$/), expect.anything()],
      files: [{ path: 'calculator-lora.gguf' }],
    });
    const { metadata } = await readGguf(made.directory);
    expect(metadata).toMatchObject({ 'general.name': 'Calculator', 'adapter.lora.alpha': 16 });
    expect(await convert({ ...options, tools: { ...tools, python: tools.python! } })).toEqual(made);

    const f16 = { kind: 'gguf', id: 'gguf-f16', type: 'F16', wanted: true } as const;
    const base = await convert(optionsFor(f16, place, tools));
    const request = {
      model: join(base.directory, base.manifest.files[0]?.path ?? ''),
      text: QUESTION,
      count: 6,
      llamaCpp: tools.llamaCpp!,
      variables: tools.variables,
    };
    const adapter = join(made.directory, 'calculator-lora.gguf');
    expect((await tryGguf({ ...request, adapter }))?.text.trim()).toBe(ANSWER);
    expect((await tryGguf(request))?.text.trim()).not.toBe(ANSWER);
  });

  it.each([
    ['DoRA', { use_dora: true }, /adapter\.|convert\./],
    ['more than one strength', { alpha_pattern: { q_proj: 32 } }, /more than one strength/],
    ['trained biases', { bias: 'all' }, /trained biases/],
    [
      'replicated layers',
      {
        layer_replication: [
          [0, 2],
          [1, 3],
        ],
      },
      /replicates layers/,
    ],
  ])('is refused before the merge with %s', async (_what, changes, message) => {
    const calculator = await withConfig(changes);
    const model: ModelFacts = { config: {}, directory: BASE, tensors: new Map() };
    const options = { steps: [STEP], model, tools, adapters: { calculator } };
    await expect(preflightConversions(options)).rejects.toMatchObject({
      code: 'convert.adapter-unsupported',
      message: expect.stringMatching(message),
    });
  });

  it('has one strength for modules of different rank only without rank stabilisation', async () => {
    const plain = await readGgufAdapter('calculator', CALCULATOR);
    expect(plain).toMatchObject({ alpha: 16, weightsFile: 'adapter_model.safetensors' });
    expect(plain.modules).toHaveLength(21);
  });
});
