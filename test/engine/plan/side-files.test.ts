import { expect, test } from 'vitest';
import { chooseSideFiles } from '../../../engine/plan/side-files.ts';

const filesOf = (...paths: string[]) =>
  paths.map((path) => ({ path, size: 1, sha256: '0'.repeat(64) }));

function choose(base: readonly string[], adapter: readonly string[]): Record<string, string> {
  const chosen = chooseSideFiles(filesOf(...base), { id: 'a', files: filesOf(...adapter) });
  return Object.fromEntries(chosen.map(({ path, input }) => [path, input]));
}

test('what a release needs comes from the base, the rest stays behind', () => {
  const base = [
    'config.json',
    'generation_config.json',
    'tokenizer.json',
    'tokenizer.model',
    'tokenizer_config.json',
    'preprocessor_config.json',
    'modeling_tiny.py',
    'LICENSE',
    'LICENSE.txt',
    'README.md',
    'model.safetensors',
    'pytorch_model.bin',
    'training_args.bin',
    'weldline.json',
    'onnx/config.json',
  ];
  expect(choose(base, ['adapter_config.json', 'README.md'])).toEqual({
    'config.json': 'base',
    'generation_config.json': 'base',
    'tokenizer.json': 'base',
    'tokenizer.model': 'base',
    'tokenizer_config.json': 'base',
    'preprocessor_config.json': 'base',
    'modeling_tiny.py': 'base',
    LICENSE: 'base',
    'LICENSE.txt': 'base',
  });
});

test('an adapter with a tokenizer brings its settings whole, and the base what it lacks', () => {
  const base = [
    'config.json',
    'tokenizer.json',
    'tokenizer.model',
    'tokenizer_config.json',
    'chat_template.jinja',
  ];
  const adapter = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'];
  expect(choose(base, adapter)).toEqual({
    'config.json': 'base',
    'special_tokens_map.json': 'a',
    'tokenizer.json': 'a',
    'tokenizer.model': 'base',
    'tokenizer_config.json': 'a',
  });
});

test('an adapter without tokenizer settings brings none of its vocabulary', () => {
  expect(choose(['tokenizer.json', 'tokenizer_config.json'], ['tokenizer.json'])).toEqual({
    'tokenizer.json': 'base',
    'tokenizer_config.json': 'base',
  });
});

test('a chat template of the adapter comes along, with or without a tokenizer', () => {
  const base = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'];
  for (const there of [base, base.slice(0, 2)]) {
    expect(choose(there, ['chat_template.jinja', 'tokenizer.json'])).toEqual({
      'chat_template.jinja': 'a',
      'tokenizer.json': 'base',
      'tokenizer_config.json': 'base',
    });
  }
  expect(choose(base, ['chat_template.jinja', 'tokenizer_config.json'])).toEqual({
    'chat_template.jinja': 'a',
    'tokenizer.json': 'base',
    'tokenizer_config.json': 'a',
  });
});

test('a configuration of the adapter never replaces the base’s', () => {
  expect(choose(['config.json'], ['config.json', 'tokenizer_config.json'])).toEqual({
    'config.json': 'base',
    'tokenizer_config.json': 'a',
  });
});
