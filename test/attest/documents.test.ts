/** Provenance and bills of materials: the same facts give the same bytes, which others accept. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { billOfMaterials, parseBillOfMaterials } from '../../attest/bom.ts';
import type { AttestationFacts } from '../../attest/facts.ts';
import { modelUri, toolUrl } from '../../attest/package-url.ts';
import { parseProvenance } from '../../attest/parse-provenance.ts';
import { provenanceStatement } from '../../attest/provenance.ts';
import { SPDX_IDS, spdxId } from '../../attest/spdx.ts';
import { runServicesPython } from '../services-python.ts';
import { CONVERSION, MERGED } from './sample-facts.ts';

const FIXTURES = join(import.meta.dirname, '../fixtures/attest');
const FACTS: Readonly<Record<string, AttestationFacts>> = {
  merged: MERGED,
  conversion: CONVERSION,
};

let replies: ReadonlyMap<string, unknown>;
beforeAll(async () => {
  const questions = [
    ...Object.entries(FACTS).map(([id, facts]) => ({
      ...{ id: `bom ${id}`, ask: 'bom', text: billOfMaterials(facts) },
    })),
    { id: 'licences', ask: 'bom', text: withLicenses(SPDX_IDS) },
    { id: 'no licence', ask: 'bom', text: withLicenses(['llama3.1']) },
    ...['merged', 'conversion'].map((id) => ({
      ...{ id: `provenance ${id}`, ask: 'provenance', text: provenanceStatement(FACTS[id]!) },
    })),
    ...purls().map((text) => ({ id: `purl ${text}`, ask: 'purl', text })),
  ];
  const answers = (await runServicesPython(
    join(import.meta.dirname, 'validators.py'),
    questions,
  )) as unknown[];
  replies = new Map(questions.map(({ id }, index) => [id, answers[index]]));
});

/** As many licences as ids, which are accepted only where SPDX has them, spelled like that. */
function withLicenses(ids: readonly string[]): string {
  const bom = JSON.parse(billOfMaterials(MERGED));
  bom.metadata.component.licenses = ids.map((id) => ({ license: { id } }));
  return JSON.stringify(bom);
}

/** All package URLs that stand in the documents. */
function purls(): string[] {
  const texts = [MERGED, CONVERSION].flatMap((facts) => [
    billOfMaterials(facts),
    provenanceStatement(facts),
  ]);
  return [...new Set(texts.flatMap((text) => text.match(/pkg:[^"]+/g) ?? []))];
}

describe.each(['merged', 'conversion'] as const)('the documents of an artefact: %s', (id) => {
  const facts = FACTS[id]!;

  it('are the same bytes every time', async () => {
    const provenance = provenanceStatement(facts);
    expect(provenanceStatement(structuredClone(facts))).toBe(provenance);
    await expect(provenance).toMatchFileSnapshot(join(FIXTURES, `${id}.provenance.json`));
    const bom = billOfMaterials(facts);
    expect(billOfMaterials({ ...facts, files: facts.files.toReversed() })).toBe(bom);
    await expect(bom).toMatchFileSnapshot(join(FIXTURES, `${id}.bom.json`));
  });

  it('are what the validators of CycloneDX and in-toto take', () => {
    expect(replies.get(`bom ${id}`)).toBe('valid');
    expect(replies.get(`provenance ${id}`)).toBe('valid');
  });

  it('say what was claimed when they are read again', () => {
    const { subjects, models, run, ...claims } = parseProvenance(provenanceStatement(facts));
    const plain = facts.files.map(({ path, sha256 }) => ({ path, sha256 }));
    const byPath = (one: { path: string }, other: { path: string }): number =>
      one.path < other.path ? -1 : 1;
    expect([...subjects].sort(byPath)).toEqual(plain.sort(byPath));
    expect(claims).toEqual({
      ...{ artefact: facts.artefact.name, version: '2.0.0', plan: facts.plan },
      recipe: {
        ...{ name: 'tone-model', sha256: facts.recipe.digest, document: facts.recipe.document },
      },
      ...{ options: facts.options, engine: facts.engine },
      ...(facts.conversion && { madeOf: facts.conversion.madeOf.manifestDigest }),
    });
    expect(models.map((model) => [model.id, model.model, model.files.length])).toEqual(
      [facts.base, ...facts.adapters].map((model) => [model.id, model.model, model.files.length]),
    );
    expect(models[0]).toMatchObject({ id: 'base', commit: 'd'.repeat(40) });
    expect(models.at(-1)).toMatchObject({ trainingRun: 'https://tracker.example.com/runs/42' });
    expect(run).toEqual({
      ...{ workflowId: 'release/tone model', runId: '0196-r' },
      ...{ startedOn: '2026-11-25T00:00:00Z', finishedOn: '2026-11-25T01:02:03Z' },
    });
    const bom = parseBillOfMaterials(billOfMaterials(facts));
    expect([...bom.files].sort(byPath)).toEqual(plain);
    expect(bom).toMatchObject({
      artefact: facts.artefact.name,
      manifestDigest: facts.artefact.manifestDigest,
    });
  });
});

describe('a bill of materials', () => {
  it.each(['merged', 'conversion'] as const)('refers to what is in it: %s', (id) => {
    const text = billOfMaterials(FACTS[id]!);
    const { dependencies } = JSON.parse(text) as {
      dependencies: { ref: string; dependsOn?: string[] }[];
    };
    const refs = [...text.matchAll(/"bom-ref": ("(?:[^"\\]|\\.)*")/g)].map(
      ([, ref]) => JSON.parse(ref ?? '') as string,
    );
    expect(new Set(refs).size).toBe(refs.length);
    for (const { ref, dependsOn = [] } of dependencies) {
      expect(refs).toEqual(expect.arrayContaining([ref, ...dependsOn]));
    }
  });

  it('has a serial number of its own for each artefact', () => {
    const serial = (facts: AttestationFacts): unknown =>
      (JSON.parse(billOfMaterials(facts)) as { serialNumber: unknown }).serialNumber;
    const other = { ...MERGED.artefact, manifestDigest: '0'.repeat(64) };
    expect(new Set([MERGED, CONVERSION, { ...MERGED, artefact: other }].map(serial)).size).toBe(3);
  });

  it('knows which licences SPDX has', () => {
    expect(replies.get('licences')).toBe('valid');
    expect(replies.get('no licence')).toContain('llama3.1');
    expect(['apache-2.0', 'MIT', 'odc-by', 'llama3.1', 'other'].map(spdxId)).toEqual([
      ...['Apache-2.0', 'MIT', 'ODC-By-1.0', undefined, undefined],
    ]);
  });
});

describe('what packages are called', () => {
  it('is how the library of package URLs writes it', () => {
    expect(purls().length).toBeGreaterThan(8);
    for (const purl of purls()) expect(replies.get(`purl ${purl}`)).toBe(purl);
  });

  it.each([
    ['gpt2', 'pkg:huggingface/gpt2@abc'],
    ['org/m.1_x', 'pkg:huggingface/org/m.1_x@abc'],
  ])('names the model %s of the hub', (repo, expected) => {
    expect(modelUri({ kind: 'hub', repo, commit: 'abc', folder: '' })).toBe(expected);
  });

  it.each([
    ['oci://host:5000/a/b', `oci://host:5000/a/b@sha256:${'8'.repeat(64)}`],
    ['oci://host/a/b:v1', `oci://host/a/b@sha256:${'8'.repeat(64)}`],
    [`oci://host/a/b@sha256:${'7'.repeat(64)}`, `oci://host/a/b@sha256:${'8'.repeat(64)}`],
  ])('pins %s', (uri, expected) => {
    expect(modelUri({ kind: 'oci', uri, pin: '8'.repeat(64) })).toBe(expected);
  });

  it('leaves out what a program says of its version behind a space', () => {
    expect(toolUrl('llama.cpp', 'v0.4.0 (80fb11ac)')).toBe('pkg:github/ggml-org/llama.cpp@v0.4.0');
  });
});

describe('what is no document of a release', () => {
  const provenance = provenanceStatement(MERGED);
  const bom = billOfMaterials(MERGED);

  it.each([
    ['no JSON', 'x', /is no JSON/],
    ['another statement', provenance.replace('slsa.dev/provenance/v1', 'x.test'), /predicateType/],
    ['another build', provenance.replace('release:v1', 'release:v9'), /buildType/],
    [
      'a digest in capitals',
      provenance.replaceAll('b'.repeat(64), 'B'.repeat(64)),
      /small letters/,
    ],
    ['a digest cut short', provenance.replaceAll('b'.repeat(64), 'b'.repeat(63)), /small letters/],
    ['a short commit', provenance.replaceAll('d'.repeat(40), 'd'.repeat(7)), /is no commit/],
    [
      'a subject twice',
      provenance.replace('"config.json"', '"weldline.json"'),
      /two have one name/,
    ],
    ['a time elsewhere', provenance.replace('00:00:00Z', '00:00:00+01:00'), /is no time in UTC/],
  ])('is refused as provenance: %s', (_, text, message) => {
    expect(text).not.toBe(provenance);
    expect(() => parseProvenance(text)).toThrow(
      expect.objectContaining({
        code: 'attest.document-invalid',
        message: expect.stringMatching(message),
      }),
    );
  });

  it.each([
    ['no JSON', 'x', /is no JSON/],
    ['another version', bom.replace('"1.6"', '"1.5"'), /specVersion/],
    ['a digest in capitals', bom.replaceAll('b'.repeat(64), 'B'.repeat(64)), /hashes/],
  ])('is refused as a bill of materials: %s', (_, text, message) => {
    expect(() => parseBillOfMaterials(text)).toThrow(
      expect.objectContaining({
        code: 'attest.document-invalid',
        message: expect.stringMatching(message),
      }),
    );
  });

  it('is found before it is published', () => {
    const files = [...MERGED.files, ...MERGED.files.slice(0, 1)];
    expect(() => provenanceStatement({ ...MERGED, files })).toThrow(
      expect.objectContaining({ code: 'internal.bug' }),
    );
  });
});
