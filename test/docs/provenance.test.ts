/** What docs/provenance.md says of fields, roles and files is so. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { BOM_FILE } from '../../attest/bom.ts';
import { IGNORED_PATHS, SIGNATURE_FILE } from '../../attest/model-signature.ts';
import { provenanceStatement } from '../../attest/provenance.ts';
import {
  BUILD_TYPE,
  BUILDER_ID,
  PROVENANCE_FILE,
  PROVENANCE_TYPE,
} from '../../attest/provenance-terms.ts';
import { CONVERSION, MERGED } from '../attest/sample-facts.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(ROOT, 'docs', 'provenance.md'), 'utf8');

/** The first cells of the rows of tables. */
const firstCells = text
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.split('|')[1]?.trim() ?? '');

test('every field has a row', () => {
  const { subject, predicate } = JSON.parse(provenanceStatement(CONVERSION));
  const { buildDefinition, runDetails } = predicate;
  const cells = firstCells.join(' ');
  expect(Object.keys(predicate)).toEqual(['buildDefinition', 'runDetails']);
  expect(subject.length).toBeGreaterThan(0);
  for (const key of Object.keys(buildDefinition.internalParameters)) {
    expect(cells).toMatch(new RegExp(`\`(internalParameters)?\\.${key}\``));
  }
  for (const key of Object.keys(runDetails.metadata)) expect(cells).toContain(`.${key}\``);
  expect(Object.keys(buildDefinition.externalParameters)).toEqual(['recipe']);
});

test('every role has a row', () => {
  const roles = [MERGED, CONVERSION].flatMap((facts) => {
    const { buildDefinition } = JSON.parse(provenanceStatement(facts)).predicate;
    const all = buildDefinition.resolvedDependencies as { annotations: { role: string } }[];
    return all.map(({ annotations }) => `\`${annotations.role}\``);
  });
  expect(firstCells).toEqual(expect.arrayContaining([...new Set(roles)]));
});

test('URIs, files and what is not signed are named', () => {
  for (const name of [
    ...[BUILD_TYPE, BUILDER_ID, PROVENANCE_TYPE, PROVENANCE_FILE, BOM_FILE, SIGNATURE_FILE],
    ...IGNORED_PATHS,
  ]) {
    expect(text).toContain(`\`${name}\``);
  }
});
