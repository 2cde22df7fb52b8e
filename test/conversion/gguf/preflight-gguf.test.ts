import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { GgufConversion } from '../../../config/release-quality.ts';
import { openCheckpointDirectory } from '../../../conversion/checkpoint-directory.ts';
import type { ConversionTools, ModelFacts } from '../../../conversion/convert-options.ts';
import { requireSameModel } from '../../../conversion/gguf/preflight-gguf.ts';
import { planConversions } from '../../../conversion/plan-conversions.ts';
import { preflightConversions } from '../../../conversion/preflight-conversions.ts';
import { readCheckpoint } from '../../../engine/safetensors/checkpoint.ts';
import { readImatrix } from '../../../tools/gguf/read-imatrix.ts';
import { BASE, IMATRIX, testTools } from './tiny-model.ts';

// The import of torch takes a minute on a busy machine.
vi.setConfig({ testTimeout: 240_000 });

let tools: ConversionTools;
let base: ModelFacts;
let directory: string;

beforeAll(async () => {
  tools = await testTools();
  const { tensors } = await readCheckpoint(await openCheckpointDirectory(BASE));
  base = {
    config: JSON.parse(await readFile(join(BASE, 'config.json'), 'utf8')),
    directory: BASE,
    tensors: new Map([...tensors].map(([name, { shape }]) => [name, shape])),
  };
  directory = await mkdtemp(join(tmpdir(), 'weldline-preflight-'));
});
afterAll(async () => await rm(directory, { recursive: true, force: true }));

const plan = (settings: Partial<GgufConversion>) =>
  planConversions({
    conversions: [
      { kind: 'gguf', quantizations: ['Q4_K_M'], from: 'F16', adapters: false, ...settings },
    ],
    adapterIds: [],
  });

const preflight = async (
  model: ModelFacts,
  settings: Partial<GgufConversion> = {},
): Promise<readonly string[]> =>
  await preflightConversions({ steps: plan(settings), model, tools, retention: 0.931 });

/** The base with other files: a null takes one away. */
async function withFiles(files: Readonly<Record<string, string | null>>): Promise<ModelFacts> {
  const copy = await mkdtemp(join(directory, 'model-'));
  await cp(BASE, copy, { recursive: true });
  await rm(join(copy, 'model.safetensors'));
  for (const [name, content] of Object.entries(files)) {
    if (content === null) await rm(join(copy, name));
    else await writeFile(join(copy, name), content);
  }
  return { ...base, directory: copy };
}

describe('preflight of GGUF', () => {
  it('warns of what will disappoint, of a model whose weights are not there', async () => {
    // More rows than the tokenizer has tokens are filled up by llama.cpp: no reason to refuse them.
    const tensors = new Map(
      [...base.tensors].map(([name, shape]) => [
        name,
        shape.map((length, index) => {
          if (index === 0 && /embed_tokens|lm_head/.test(name)) return 520;
          return length === 256 ? 320 : length;
        }),
      ]),
    );
    const model = { ...(await withFiles({})), tensors };
    const config = { ...base.config, hidden_size: 320, head_dim: 80, vocab_size: 520 };
    const kinds = ['Q4_K_M', 'Q8_0', 'Q2_K', 'MXFP4_MOE'] as const;
    const warnings = await preflight({ ...model, config }, { quantizations: kinds });
    expect(warnings).toEqual([
      expect.stringMatching(
        /^gguf-q4_k_m: 20 of 23 matrices have rows that are no multiple of 256/,
      ),
      expect.stringMatching(/^gguf-q2_k: Q2_K is known to erase what a fine-tune taught/),
      expect.stringMatching(/^gguf-q2_k: .* 93\.1 % survives the rounding to 16 bits/),
      expect.stringMatching(/^gguf-q2_k: 20 of 23 matrices/),
      expect.stringMatching(/^gguf-mxfp4_moe: .*the same as Q8_0/),
    ]);
  });

  it('refuses an architecture that the converter does not know', async () => {
    const config = { ...base.config, architectures: ['NobodyForCausalLM'] };
    await expect(preflight({ ...base, config })).rejects.toMatchObject({
      code: 'convert.unsupported-architecture',
      message: expect.stringMatching(/NobodyForCausalLM.*Nothing was merged/),
    });
  });

  it('refuses a tokenizer that is code, and does not run it', async () => {
    const trace = join(directory, 'was-executed');
    const model = await withFiles({
      'tokenizer.model': null,
      'tokenizer.json': null,
      'tokenizer_config.json': JSON.stringify({
        tokenizer_class: 'EvilTokenizer',
        auto_map: { AutoTokenizer: ['evil.EvilTokenizer', null] },
      }),
      'evil.py': `open(${JSON.stringify(trace)}, 'w').close()\nclass EvilTokenizer: pass\n`,
      'vocab.json': '{}',
    });
    await expect(preflight(model)).rejects.toMatchObject({
      code: 'convert.unsupported-tokenizer',
      message: expect.stringContaining('a tokenizer that is code'),
    });
    await expect(readFile(trace)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('refuses a tokenizer that is not there', async () => {
    const model = await withFiles({ 'tokenizer.model': null, 'tokenizer.json': null });
    await expect(preflight(model)).rejects.toMatchObject({ code: 'convert.tokenizer-missing' });
  });

  it('refuses embeddings with other rows than config.json says', async () => {
    const tensors = new Map(base.tensors).set('model.embed_tokens.weight', [520, 256]);
    await expect(preflight({ ...base, tensors })).rejects.toMatchObject({
      code: 'convert.vocabulary-mismatch',
      message: expect.stringMatching(/520 rows.*512/),
    });
  });

  it.each([
    ['nothing', 'is not there, or is empty'],
    ['text', 'is no GGUF file'],
  ])('refuses %s for an importance matrix', async (content, message) => {
    const file = join(directory, content);
    if (content === 'text') await writeFile(file, 'not a matrix'.repeat(100));
    await expect(preflight(base, { imatrix: { file } })).rejects.toMatchObject({
      code: 'convert.imatrix-invalid',
      message: expect.stringContaining(message),
    });
  });

  it('refuses the importance matrix of another model', async () => {
    const matrix = await readImatrix(IMATRIX);
    const columns = (name: string): number => (/ffn_down/.test(name) ? 512 : 256);
    const own = [...matrix.entries.keys()].map((name) => [name, [128, columns(name)]] as const);
    expect(() => requireSameModel('m', matrix, { tensors: new Map(own) })).not.toThrow();
    const wider = new Map<string, readonly number[]>(own).set('blk.1.ffn_down.weight', [256, 1536]);
    for (const tensors of [wider, new Map(own.slice(1))]) {
      expect(() => requireSameModel('m', matrix, { tensors })).toThrow(
        expect.objectContaining({
          code: 'convert.imatrix-invalid',
          message: expect.stringMatching(/another model: it has (512|256) values for blk/),
        }),
      );
    }
  });
});
