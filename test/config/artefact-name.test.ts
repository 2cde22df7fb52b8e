import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { artefactName } from '../../config/artefact-name.ts';

const parts = {
  base: 'hf://HuggingFaceTB/SmolLM2-135M-Instruct@main',
  version: '1.2.0',
  adapter: 'support',
  adapterDigest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
};

describe('artefactName', () => {
  it('names base, version, adapter and the start of its digest', () => {
    expect(artefactName(parts)).toBe('merged-SmolLM2-135M-Instruct-1.2.0-adapter-support-01234567');
  });

  it('prefers the version of the adapter, and shortens a commit as a digest', () => {
    expect(artefactName({ ...parts, adapterVersion: '3.0' })).toMatch(/-adapter-support-3\.0$/);
    expect(artefactName({ ...parts, adapterDigest: 'deadbeefcafe' })).toMatch(/-deadbeef$/);
  });

  it.each([
    ['/models/llama/', 'merged-llama-'],
    ['./llama', 'merged-llama-'],
    ['/models/l@ma 3', 'merged-l-ma-3-'],
    ['C:\\models\\llama', 'merged-llama-'],
    ['/', 'merged-unnamed-'],
    ['/модель', 'merged-unnamed-'],
  ])('takes the last component of %j', (base, start) => {
    expect(artefactName({ ...parts, base }).startsWith(start)).toBe(true);
  });

  it('is a safe file name for any input', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), (base, version, adapter) => {
        const name = artefactName({ ...parts, base, version, adapter });
        expect(name).toMatch(/^merged-[A-Za-z0-9._-]+$/);
        expect(name.length).toBeLessThanOrEqual(222);
      }),
    );
  });
});
