import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseBaseCard, readBaseCard } from '../../report/base-card.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';

const head = (yaml: string): string => `---\n${yaml}\n---\n# A model\n`;
const licensed = (text: string) =>
  parseBaseCard({ license: { path: 'LICENSE.txt', text } }).license;

describe('the licence of a base', () => {
  it.each([
    ['license: apache-2.0', { id: 'apache-2.0' }],
    ['license: [mit, apache-2.0]', { id: 'mit' }],
    [
      'license: other\nlicense_name: gemma-terms\nlicense_link: https://ai.google.dev/gemma/terms',
      { id: 'other', name: 'gemma-terms', link: 'https://ai.google.dev/gemma/terms' },
    ],
    ['license: llama3.1\nlicense_link: LICENSE', { id: 'llama3.1', link: 'LICENSE' }],
  ])('is what its card says: %s', (yaml, license) => {
    expect(parseBaseCard({ readme: head(yaml) }).license).toEqual(license);
    const crlf = head(yaml).replaceAll('\n', '\r\n');
    expect(parseBaseCard({ readme: `\uFEFF${crlf}` }).license).toEqual(license);
  });

  it.each([
    ['license: "a\\nb"', undefined],
    ['license: {x: y}', undefined],
    ['license: other\nlicense_link: javascript:alert(1)', { id: 'other' }],
    ['license: other\nlicense_link: ../../etc/passwd', { id: 'other' }],
    ['license: other\nlicense_name: [a]', { id: 'other' }],
    ['license: [', undefined],
    ['a: &a [x, x]\nlicense: *a', undefined],
  ])('is not what makes no sense: %s', (yaml, license) => {
    expect(parseBaseCard({ readme: head(yaml) }).license).toEqual(license);
  });

  it.each([
    ['                 Apache License\n           Version 2.0, January 2004', { id: 'apache-2.0' }],
    ['MIT License\n\nPermission is hereby granted, free of charge, to any person', { id: 'mit' }],
    ['LLAMA 3.2 COMMUNITY LICENSE AGREEMENT', { id: 'llama3.2' }],
    [
      'Tiny Model Community Licence (v1)\nYou may …',
      { id: 'other', name: 'tiny-model-community-licence-v1', link: 'LICENSE.txt' },
    ],
    ['\n\n', undefined],
  ])('is recognised by its text where there is no card', (text, license) => {
    expect(licensed(text)).toEqual(license);
  });

  it('is the card’s where both speak', () => {
    const license = { path: 'LICENSE', text: 'MIT License' };
    expect(parseBaseCard({ readme: head('license: cc-by-4.0'), license }).license).toEqual({
      id: 'cc-by-4.0',
    });
    expect(parseBaseCard({ readme: head('tags: [x]'), license }).license?.name).toBe('mit-license');
  });
});

describe('the task of a base', () => {
  it.each([
    ['LlamaForCausalLM', {}, 'text-generation'],
    ['GPT2LMHeadModel', {}, 'text-generation'],
    ['BertForSequenceClassification', {}, 'text-classification'],
    ['Gemma3ForConditionalGeneration', { vision_config: {} }, 'image-text-to-text'],
    ['T5ForConditionalGeneration', {}, undefined],
    ['LlamaModel', {}, undefined],
  ])('follows from its architecture: %s', (name, more, pipelineTag) => {
    const config = JSON.stringify({ architectures: [name], model_type: 'x', ...more });
    expect(parseBaseCard({ config })).toEqual({
      architecture: { name, family: 'x' },
      ...(pipelineTag && { pipelineTag }),
    });
  });

  it('is its card’s where that has one', () => {
    const config = JSON.stringify({ architectures: ['Qwen3ForCausalLM'] });
    const readme = head('pipeline_tag: text-ranking\nlanguage: no');
    expect(parseBaseCard({ config, readme })).toEqual({
      architecture: { name: 'Qwen3ForCausalLM' },
      ...{ pipelineTag: 'text-ranking', languages: ['no'] },
    });
  });
});

it('reads a directory, and says nothing of what is not there', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'weldline-base-'));
  try {
    await writeFile(join(directory, 'model.safetensors'), '');
    expect(await readBaseCard(await openModelDirectory(directory))).toEqual({});
    await writeFile(join(directory, 'README.md'), head('language: [en, de]'));
    await writeFile(join(directory, 'LICENCE'), 'Apache License\nVersion 2.0');
    await writeFile(join(directory, 'config.json'), '{"architectures":["LlamaForCausalLM"]}');
    expect(await readBaseCard(await openModelDirectory(directory))).toEqual({
      license: { id: 'apache-2.0' },
      languages: ['en', 'de'],
      pipelineTag: 'text-generation',
      architecture: { name: 'LlamaForCausalLM' },
    });
  } finally {
    await rm(directory, { recursive: true });
  }
});
