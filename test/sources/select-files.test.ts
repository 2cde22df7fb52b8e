import { describe, expect, it } from 'vitest';
import type { HubFile } from '../../sources/hub-model.ts';
import { selectAdapterFiles, selectBaseFiles } from '../../sources/select-files.ts';

const list = (...paths: string[]): HubFile[] =>
  paths.map((path) => ({ path, size: 1, gitSha1: '0'.repeat(40) }));
const names = (files: readonly HubFile[]) => files.map(({ path }) => path).toSorted();

const LLAMA = list(
  '.gitattributes',
  'LICENSE',
  'README.md',
  'USE_POLICY.md',
  'config.json',
  'generation_config.json',
  'model-00001-of-00002.safetensors',
  'model-00002-of-00002.safetensors',
  'model.safetensors.index.json',
  'original/consolidated.00.pth',
  'original/params.json',
  'special_tokens_map.json',
  'tokenizer.json',
  'tokenizer_config.json',
);

describe('selectBaseFiles', () => {
  it('takes shards and what travels with them, not the original checkpoint', () => {
    const chosen = names(selectBaseFiles(LLAMA, { name: 'llama' }));
    expect(chosen).toEqual(names(LLAMA.filter(({ path }) => !/^(original|\.git)/.test(path))));
  });

  it('takes exactly the weights the index names', () => {
    const files = [...LLAMA, ...list('consolidated.safetensors', 'model.fp16.safetensors')];
    const weightNames = ['model-00002-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    const chosen = names(selectBaseFiles(files, { name: 'llama', weightNames }));
    expect(chosen.filter((path) => path.endsWith('.safetensors'))).toEqual([weightNames[0]]);
    expect(() =>
      selectBaseFiles(files, { name: 'llama', weightNames: ['gone.safetensors'] }),
    ).toThrow(expect.objectContaining({ code: 'checkpoint.index-missing-file' }));
  });

  it('prefers the single file and leaves other formats of the same weights', () => {
    const files = list(
      'config.json',
      'flax_model.msgpack',
      'model.safetensors',
      'onnx/model.onnx',
      'pytorch_model.bin',
      'q4_k_m.gguf',
      'tf_model.h5',
      'rust_model.ot',
      'merges.txt',
      'vocab.json',
      'chat_template.jinja',
      'additional_chat_templates/tool_use.jinja',
      'modeling_own.py',
      'training_args.bin',
      'logo.png',
    );
    expect(names(selectBaseFiles(files, { name: 'tiny' }))).toEqual([
      'additional_chat_templates/tool_use.jinja',
      'chat_template.jinja',
      'config.json',
      'merges.txt',
      'model.safetensors',
      'modeling_own.py',
      'vocab.json',
    ]);
  });

  it('looks into a folder only', () => {
    const files = list(
      'model.safetensors',
      'best/model.safetensors',
      'best/config.json',
      'bestiary/x.safetensors',
    );
    expect(names(selectBaseFiles(files, { name: 'tiny', folder: 'best' }))).toEqual([
      'best/config.json',
      'best/model.safetensors',
    ]);
  });

  it.each([
    [list('config.json', 'pytorch_model.bin'), 'checkpoint.pickle-only'],
    [list('config.json', 'model.gguf'), 'checkpoint.no-weights'],
    [list('unet/model.safetensors'), 'checkpoint.no-weights'],
    [[], 'checkpoint.no-weights'],
  ] as const)('refuses a repository without weights it reads', (files, code) => {
    expect(() => selectBaseFiles(files, { name: 'hf://acme/x' })).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining('hf://acme/x') }),
    );
  });
});

describe('selectAdapterFiles', () => {
  it('takes the adapter and its tokenizer, not checkpoints and trainer state', () => {
    const files = list(
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'added_tokens.json',
      'chat_template.jinja',
      'checkpoint-500/adapter_model.safetensors',
      'optimizer.pt',
      'tokenizer.json',
      'trainer_state.json',
      'training_args.bin',
    );
    expect(names(selectAdapterFiles(files, { name: 'lora' }))).toEqual([
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'added_tokens.json',
      'chat_template.jinja',
      'tokenizer.json',
    ]);
    expect(names(selectAdapterFiles(files, { name: 'lora', folder: 'checkpoint-500' }))).toEqual([
      'checkpoint-500/adapter_model.safetensors',
    ]);
  });

  it('takes the one safetensors file of another trainer, and does not guess between two', () => {
    expect(names(selectAdapterFiles(list('style.safetensors'), { name: 'lora' }))).toEqual([
      'style.safetensors',
    ]);
    expect(() =>
      selectAdapterFiles(list('a.safetensors', 'b.safetensors'), { name: 'lora' }),
    ).toThrow(expect.objectContaining({ code: 'adapter.weights-missing' }));
  });

  it('takes a pickle where there is nothing else', () => {
    const pickle = list('adapter_config.json', 'adapter_model.bin', 'training_args.bin');
    expect(names(selectAdapterFiles(pickle, { name: 'lora' }))).toEqual([
      'adapter_config.json',
      'adapter_model.bin',
    ]);
    const both = [...pickle, ...list('adapter_model.safetensors')];
    expect(names(selectAdapterFiles(both, { name: 'lora' }))).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
    ]);
  });

  it('takes the last weights of MLX, not those on the way', () => {
    const files = list(
      '0000100_adapters.safetensors',
      '0000200_adapters.safetensors',
      'adapter_config.json',
      'adapters.safetensors',
    );
    expect(names(selectAdapterFiles(files, { name: 'lora' }))).toEqual([
      'adapter_config.json',
      'adapters.safetensors',
    ]);
  });

  it.each([
    ['__0_0.distcp', 'accelerate merge-weights'],
    ['global_step200/mp_rank_00_model_states.pt', 'zero_to_fp32.py'],
    ['mp_rank_00/model_states.pt', 'trainer'],
  ])('says how to consolidate what has %s', (path, remedy) => {
    expect(() => selectAdapterFiles(list('adapter_config.json', path), { name: 'lora' })).toThrow(
      expect.objectContaining({
        code: 'adapter.training-shards',
        message: expect.stringContaining(remedy),
      }),
    );
  });
});
