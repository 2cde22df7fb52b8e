import type { AttestationFacts } from '../../attest/facts.ts';

const digest = (character: string): string => character.repeat(64);

/** A merged checkpoint with all that can be said of one, and names that need care. */
export const MERGED: AttestationFacts = {
  artefact: {
    name: 'merged-tiny-2.0.0-adapter-tone-3',
    version: '2.0.0',
    manifestDigest: digest('b'),
  },
  files: [
    { path: 'weldline.json', size: 900, sha256: digest('b') },
    { path: 'model.safetensors', size: 123_456, sha256: digest('1') },
    { path: 'adapters/tone/adapter_model.safetensors', size: 77, sha256: digest('2') },
    { path: 'adapters-notes.md', size: 5, sha256: digest('3') },
    { path: 'config.json', size: 600, sha256: digest('4') },
  ],
  base: {
    id: 'base',
    model: 'hf://org/tiny',
    place: { kind: 'hub', repo: 'org/tiny', commit: 'd'.repeat(40), folder: '' },
    files: [
      { path: 'model.safetensors', size: 123_400, sha256: digest('5') },
      { path: 'config.json', size: 600, sha256: digest('4') },
    ],
  },
  adapters: [
    {
      id: 'tone',
      model: 'hf://org/tones/v3 (final)',
      place: {
        ...{ kind: 'hub', repo: 'org/tones', commit: 'e'.repeat(40), folder: 'v3 (final)' },
        endpoint: 'https://hub.example.com',
      },
      files: [{ path: 'adapter_model.safetensors', size: 77, sha256: digest('2') }],
      trainingRun: 'run-1',
    },
    {
      id: 'style',
      model: 's3://bucket/styles/größe',
      place: { kind: 's3', uri: 's3://bucket/styles/größe/', pin: digest('6') },
      files: [{ path: 'adapter_model.safetensors', size: 78, sha256: digest('7') }],
    },
    {
      id: 'form',
      model: 'oci://registry.example.com:5000/adapters/form:latest',
      place: {
        ...{ kind: 'oci', pin: digest('8') },
        uri: 'oci://registry.example.com:5000/adapters/form:latest',
      },
      files: [{ path: 'adapter_model.safetensors', size: 79, sha256: digest('9') }],
    },
    {
      id: 'local',
      model: 'checkpoint-500',
      place: { kind: 'directory' },
      files: [
        { path: 'adapter_model.safetensors', size: 80, sha256: digest('a') },
        { path: 'adapter_config.json', size: 8, sha256: digest('0') },
      ],
      trainingRun: 'https://tracker.example.com/runs/42',
    },
  ],
  recipe: {
    name: 'tone-model',
    digest: digest('c'),
    document: { name: 'tone-model', version: '2.0.0', base: { model: 'hf://org/tiny@main' } },
  },
  engine: { version: '9.8.7', format: 3 },
  plan: digest('f'),
  options: { dtype: 'float16', weights: '1, 0.5', seed: 7 },
  tools: {},
  metrics: [
    { suite: 'calculator', metric: 'accuracy', value: 0.95, low: 0.81, high: 0.99 },
    { suite: 'calculator', metric: 'kl_divergence', value: 0.000_001_2 },
  ],
  gate: 'passed',
  license: { id: 'apache-2.0' },
  architecture: { name: 'LlamaForCausalLM', family: 'llama' },
  task: 'text-generation',
  run: {
    workflowId: 'release/tone model',
    runId: '0196-r',
    startedAt: '2026-11-25T00:00:00.000Z',
    finishedAt: '2026-11-25T01:02:03.456Z',
  },
};

/** A conversion of it, of which less is known. */
export const CONVERSION: AttestationFacts = {
  ...MERGED,
  artefact: {
    name: 'merged-tiny-2.0.0-adapter-tone-3-gguf-q4_k_m',
    version: '2.0.0',
    part: 'gguf-q4_k_m',
    manifestDigest: digest('9'),
  },
  files: [
    { path: 'tiny-Q4_K_M.gguf', size: 40_000, sha256: digest('8') },
    { path: 'conversion.json', size: 700, sha256: digest('9') },
  ],
  adapters: MERGED.adapters.slice(3),
  tools: { 'llama.cpp': 'v0.4.0 (80fb11ac)', torch: '2.11.0+cpu', 'my tool': '1' },
  conversion: {
    id: 'gguf-q4_k_m',
    settings: { type: 'Q4_K_M', imatrix: true },
    madeOf: { artefact: MERGED.artefact.name, manifestDigest: digest('b') },
  },
  metrics: [],
  gate: 'overridden',
  license: {
    ...{ id: 'other', name: 'tiny-community-license' },
    link: 'https://huggingface.co/org/tiny/blob/main/LICENSE',
  },
};
