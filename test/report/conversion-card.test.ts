import { describe, expect, it } from 'vitest';
import type { ConversionManifest } from '../../conversion/conversion-step.ts';
import { conversionCard } from '../../report/conversion-card.ts';
import type { ReleaseFacts } from '../../report/release-facts.ts';

const DIGEST = 'a'.repeat(64);

const FACTS: ReleaseFacts = {
  format: 'weldline.release',
  name: 'tone-model',
  version: '2.0.0',
  artefact: 'merged-tiny',
  run: { workflowId: 'release-tone', runId: 'r', startedAt: '2026-11-25T00:00:00.000Z' },
  engine: { version: '9.8.7', format: 1 },
  plan: DIGEST,
  manifestDigest: DIGEST,
  recipe: { name: 'tone-model', version: '2.0.0', digest: DIGEST },
  inputs: [
    { id: 'base', model: 'tiny', files: [] },
    { id: 'tone', model: 'tone', files: [] },
  ],
  options: {},
  rules: [],
  configEdits: [],
  warnings: [],
  tensors: { total: 19, merged: 4, replaced: 0 },
  verification: {
    filesChecked: 4,
    bytesChecked: 1000,
    tensorsChecked: 19,
    rowsRecomputed: 12,
    worstRounding: 0.501,
  },
  files: [],
  gate: {
    format: 'weldline.gate',
    artefacts: [
      {
        candidate: 'gguf-q2_k',
        passed: false,
        failures: [{ signal: 'kl-too-large', suite: 'tone', message: '0.6, above 0.05' }],
        warnings: [],
        suites: [],
      },
    ],
  },
  approval: { by: 'Ann', override: 'two <wrong> answers', at: '2026-11-26T00:00:00.000Z' },
};

const Q2_K: ConversionManifest = {
  format: 'weldline.conversion',
  id: 'gguf-q2_k',
  kind: 'gguf',
  key: DIGEST,
  tools: { 'llama.cpp': 'v1' },
  settings: { type: 'Q2_K' },
  checks: ['It loads.'],
  warnings: [],
  files: [{ path: 'tiny-Q2_K.gguf', size: 1, sha256: DIGEST }],
};

describe('the card of a conversion', () => {
  it('says what the gate refused, and who released it all the same and why', () => {
    const card = conversionCard(FACTS, 'merged-tiny-gguf-q2_k', Q2_K);
    expect(card).toContain(`## Evaluated

- gguf-q2_k failed
- kl-too-large (suite tone): 0.6, above 0.05
- approved by Ann, over the gate: two \\<wrong\\> answers
`);
  });

  it('says of which checkpoint it was made, but of an adapter which one it is', () => {
    expect(conversionCard(FACTS, 'x', Q2_K)).toContain('| made of | `merged-tiny`');
    const adapter = { ...Q2_K, id: 'gguf-adapter-tone', kind: 'gguf-adapter' } as const;
    expect(conversionCard(FACTS, 'x', adapter)).not.toContain('made of');
  });
});
