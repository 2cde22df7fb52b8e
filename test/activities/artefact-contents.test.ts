/** That what is published is what was judged, however long a release has waited in between. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { archivedAdapters, artefactContents } from '../../activities/artefact-contents.ts';
import type { Converted, ReleaseParts } from '../../activities/quality-types.ts';
import { makeConversion } from '../../conversion/conversion-store.ts';
import type { ReleaseFacts } from '../../report/release-facts.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { sampleInput } from '../report/html/sample-facts.ts';

const FACTS: ReleaseFacts = sampleInput().release;

/** A calibration on a GPU: never twice the same integers. */
async function makeIntegers(directory: string, content: string): Promise<Converted> {
  const facts = { id: 'awq-w4a16-g128', kind: 'awq', key: 'a'.repeat(64) } as const;
  const made = await makeConversion(
    join(directory, 'conversions'),
    { ...facts, tools: {}, settings: {} },
    async (partial) => {
      await writeFile(join(partial, 'model.safetensors'), content);
      return { checks: [], warnings: [] };
    },
  );
  return { id: facts.id, directory: made.directory, manifestDigest: made.manifestDigest };
}

/** The release as the workflow tells it, as far as parts are concerned. */
function releaseOf(converted: Converted, evaluated: string): ReleaseParts {
  const quality = {
    converted: [converted],
    evaluated: [{ candidate: converted.id, digest: evaluated, results: 'r' }],
  };
  return { quality, inputs: { artefact: FACTS.artefact } } as unknown as ReleaseParts;
}

function publish(converted: Converted, evaluated = converted.manifestDigest) {
  const release = releaseOf(converted, evaluated);
  return artefactContents(release, FACTS, converted.id);
}

test('a conversion is published as it was evaluated', async () => {
  const converted = await makeIntegers(await temporaryDirectory(), 'judged');
  expect(await publish(converted)).toMatchObject({
    release: FACTS.artefact,
    part: 'awq-w4a16-g128',
    manifestDigest: converted.manifestDigest,
    files: [{ path: 'model.safetensors', size: 6 }, { path: 'conversion.json' }],
  });
});

test('one that was made again while the release waited is not', async () => {
  const directory = await temporaryDirectory();
  const converted = await makeIntegers(directory, 'judged');
  await writeFile(join(converted.directory, 'model.safetensors'), 'damaged');
  const again = await makeIntegers(directory, 'others');
  expect(again.directory).toBe(converted.directory);
  await expect(publish(converted)).rejects.toMatchObject({
    code: 'convert.missing',
    message: expect.stringContaining('made again since it was evaluated'),
  });
});

test('nor is one whose evaluation was of other files', async () => {
  const converted = await makeIntegers(await temporaryDirectory(), 'judged');
  await expect(publish(converted, 'b'.repeat(64))).rejects.toMatchObject({
    code: 'convert.missing',
    message: expect.stringContaining('nobody judged'),
  });
});

test('nor is a merge whose manifest is another than that which was verified', async () => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, 'weldline.json'), '{"engine": "another"}');
  const sealed = { directory, manifestDigest: 'a'.repeat(64) };
  const release = { sealed, inputs: { artefact: FACTS.artefact } } as unknown as ReleaseParts;
  await expect(artefactContents(release, { files: [] }, undefined)).rejects.toMatchObject({
    code: 'verify.digest-mismatch',
    message: expect.stringContaining('weldline.json is not the manifest'),
  });
});

test('the archive holds what was merged of each adapter, and nothing of the base', () => {
  const [base, ...adapters] = FACTS.inputs;
  expect([base?.id, adapters.length]).toEqual(['base', 2]);
  const roots = Object.fromEntries(FACTS.inputs.map(({ id }) => [id, `/somewhere/${id}`]));
  const expected = adapters.flatMap(({ id, files }) =>
    files.map((file) => ({
      ...file,
      path: `adapters/${id}/${file.path}`,
      source: `/somewhere/${id}/${file.path}`,
    })),
  );
  expect(archivedAdapters(FACTS, roots)).toEqual(expected);
});
