import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { artefactName, artefactNamePattern } from '../../config/artefact-name.ts';

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

describe('artefactNamePattern', () => {
  it('matches the names of one recipe, of one version or all, and no others', () => {
    const name = artefactName(parts);
    const { base, adapter, version } = parts;
    expect(artefactNamePattern({ base, adapter, version }).test(name)).toBe(true);
    expect(artefactNamePattern({ base, adapter }).test(name)).toBe(true);
    const others = [
      { base, adapter, version: '1.2' },
      { base, adapter, version: '1.20' },
      { base, adapter: 'supp', version },
      { base: 'hf://x/SmolLM2', adapter },
      { base: 'hf://x/SmolLM2-135M', adapter, version },
      { base: 'hf://x/SmolLM2-135M-InstructX', adapter },
    ];
    for (const other of others)
      expect(artefactNamePattern(other).test(name), other.base).toBe(false);
  });

  it('matches whatever name it is the pattern of', () => {
    const version = fc.stringMatching(/^v?\d{1,3}(\.\d{1,3}){0,2}([-+.][0-9A-Za-z]{1,4}){0,2}$/);
    const text = fc.string({ minLength: 1 });
    fc.assert(
      fc.property(text, version, text, fc.option(version), (base, own, adapter, adapterVersion) => {
        const given = { ...parts, base, version: own, adapter };
        const name = artefactName({ ...given, adapterVersion: adapterVersion ?? undefined });
        expect(artefactNamePattern({ base, adapter }).test(name)).toBe(true);
        expect(artefactNamePattern({ base, adapter, version: own }).test(name)).toBe(true);
      }),
    );
  });
});
