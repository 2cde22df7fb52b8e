import { describe, expect, it } from 'vitest';
import { isPrunable, parseReleaseRecord } from '../../publishers/release-record.ts';

const RECORD = {
  format: 'weldline.release',
  name: 'tiny',
  version: '1.0.0',
  artefact: 'merged-tiny-gguf-q4_k_m',
  release: 'merged-tiny',
  part: 'gguf-q4_k_m',
  kind: 'gguf',
  manifestDigest: 'd'.repeat(64),
  plan: 'p'.repeat(64),
  run: { workflowId: 'release-tiny-1.0.0', runId: 'r', startedAt: '2026-01-02T03:04:05.000Z' },
};

describe('release.json as publishers read it', () => {
  it('says which artefact it is, of which release', () => {
    expect(parseReleaseRecord(JSON.stringify(RECORD))).toEqual({
      ...{ release: 'merged-tiny', part: 'gguf-q4_k_m', kind: 'gguf', name: 'tiny' },
      ...{ manifestDigest: RECORD.manifestDigest, planDigest: RECORD.plan },
      createdAt: '2026-01-02T03:04:05.000Z',
    });
  });

  it('takes the name of the artefact for the release, as it was before 0.2', () => {
    const { release: _, part: __, kind: ___, ...earlier } = RECORD;
    const record = parseReleaseRecord(JSON.stringify(earlier));
    expect(record).toMatchObject({ release: RECORD.artefact, name: 'tiny' });
    expect(record).not.toHaveProperty('part');
  });

  it.each([
    ...['', '{', 'null', '1', '"x"', '[]', '{}'],
    ...['manifestDigest', 'plan', 'run'].map((name) => JSON.stringify({ ...RECORD, [name]: 1 })),
    JSON.stringify({ ...RECORD, manifestDigest: '' }),
    JSON.stringify({ ...RECORD, run: { startedAt: 'yesterday' } }),
    JSON.stringify({ ...RECORD, release: undefined, artefact: undefined }),
  ])('is none: %s', (text) => {
    expect(parseReleaseRecord(text)).toBeUndefined();
  });
});

describe('what may be pruned', () => {
  it('is weights, and never an adapter or a document', () => {
    for (const path of ['model.safetensors', 'model-00001-of-00002.safetensors']) {
      expect(isPrunable(path, 'merged')).toBe(true);
      expect(isPrunable(path, undefined)).toBe(true);
    }
    expect(isPrunable('model-q4_k_m.gguf', 'gguf')).toBe(true);
    const kept = ['config.json', 'tokenizer.model', 'weldline.json', 'README.md', 'model.sig'];
    for (const path of [...kept, 'adapters/tone/adapter_model.safetensors']) {
      expect(isPrunable(path, 'merged'), path).toBe(false);
    }
    expect(isPrunable('adapter.gguf', 'gguf-adapter')).toBe(false);
  });
});
