import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
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

// The import of torch takes a minute on a busy machine.
vi.setConfig({ testTimeout: 240_000 });

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

  const GOLDEN = fileURLToPath(new URL('../../golden', import.meta.url));
  const refused = async (
    directory: string,
    config: ModelFacts['config'] = {},
  ): Promise<unknown> => {
    const model: ModelFacts = { config, directory: BASE, tensors: new Map() };
    const adapters = { calculator: directory };
    return await preflightConversions({ steps: [STEP], model, tools, adapters }).catch(
      (error: unknown) => error,
    );
  };
  const unsupported = (message: RegExp) =>
    expect.objectContaining({
      code: 'convert.adapter-unsupported',
      message: expect.stringMatching(message),
    });

  it.each([
    ['cases/dora-bf16/adapter', /uses DoRA/],
    ['cases/modules_to_save-bf16/adapter', /modules_to_save/],
    ['cases/tokens-bf16/adapter', /trained rows of an embedding/],
    ['cases/bias_all-bf16/adapter', /trained biases/],
    ['cases/lora_bias-bf16/adapter', /trained biases/],
    ['cases/fan_in_fan_out-bf16/adapter', /fan_in_fan_out/],
    ['cases/patterns-bf16/adapter', /more than one strength/],
    ['kinds/loha-bf16/adapter', /is LOHA, and llama\.cpp knows LoRA only/],
    ['formats/mlx-lora', /is in the mlx format/],
  ])('is refused before the merge for %s', async (name, message) => {
    expect(await refused(join(GOLDEN, name))).toEqual(unsupported(message));
  });

  it('is refused on a head that the model does not have', async () => {
    const adapter = await withConfig({ target_modules: ['q_proj', 'lm_head'] });
    const file = join(adapter, 'adapter_model.safetensors');
    const bytes = await readFile(file);
    const end = 8 + Number(bytes.readBigUInt64LE());
    const header = bytes.toString('utf8', 8, end);
    const renamed = header.replaceAll('model.model.layers.0.self_attn.q_proj.', 'model.lm_head.');
    bytes.write(renamed.padEnd(header.length), 8);
    await writeFile(file, bytes);
    expect(await refused(adapter, { tie_word_embeddings: true })).toEqual(
      unsupported(/on lm_head/),
    );
    expect(await refused(adapter, { tie_word_embeddings: false })).toEqual([]);
  });

  it('takes what llama.cpp can express', async () => {
    for (const name of ['plain', 'rslora']) {
      expect(await refused(join(GOLDEN, `cases/${name}-bf16/adapter`)), name).toEqual([]);
    }
    const plain = await readGgufAdapter('calculator', CALCULATOR);
    expect(plain).toMatchObject({ alpha: 16, weightsFile: 'adapter_model.safetensors' });
    expect(plain.modules).toHaveLength(21);
  });
});
