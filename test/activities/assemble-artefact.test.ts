/** That all targets get the same documents, whatever happens between them. */
import { readFile, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { assembleArtefact, type ReleaseDocument } from '../../activities/assemble-artefact.ts';
import type { ReleaseParts } from '../../activities/quality-types.ts';
import type { Artefact, ArtefactDescription } from '../../publishers/publisher.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

const RELEASE = {
  recipe: { name: 'tone', version: '1.0.0' },
  recipeDigest: 'c'.repeat(64),
  run: { workflowId: 'tone', runId: 'b7f2', startedAt: '2026-11-28T10:00:00.000Z' },
  planDigest: 'd'.repeat(64),
} as unknown as ReleaseParts;

/** Counts how often documents are written; no two signatures are the same. */
function assembler(home: string) {
  let written = 0;
  const write = async (): Promise<readonly ReleaseDocument[]> => {
    written += 1;
    return [
      { path: 'release.json', text: '{}' },
      { path: 'model.sig', text: `signature ${written}` },
    ];
  };
  const assemble = (release = RELEASE): Promise<Artefact> =>
    assembleArtefact(home, {
      release,
      contents: { release: 'merged-tiny', manifestDigest: 'a'.repeat(64), files: [] },
      adapters: [],
      description: {} as ArtefactDescription,
      write,
    });
  return { assemble, count: () => written };
}

function fileOf({ files }: Artefact, path: string) {
  const file = files.find((each) => each.path === path);
  if (file === undefined) throw new Error(`no ${path}`);
  return file;
}

test('targets that are published to side by side have one signature made', async () => {
  const { assemble, count } = assembler(await temporaryDirectory());
  const artefacts = await Promise.all([assemble(), assemble(), assemble()]);
  expect(count()).toBe(1);
  expect(new Set(artefacts.map((each) => fileOf(each, 'model.sig').sha256)).size).toBe(1);
  expect(fileOf(await assemble(), 'model.sig')).toEqual(fileOf(artefacts[0], 'model.sig'));
  expect(count()).toBe(1);
});

test('one that fails does not keep the next from its turn', async () => {
  const home = await temporaryDirectory();
  const { assemble } = assembler(home);
  const failing = assembleArtefact(home, {
    release: RELEASE,
    contents: { release: 'merged-tiny', manifestDigest: 'a'.repeat(64), files: [] },
    adapters: [],
    description: {} as ArtefactDescription,
    write: () => Promise.reject(new Error('no token')),
  });
  const [failed, made] = await Promise.allSettled([failing, assemble()]);
  expect([failed.status, made.status]).toEqual(['rejected', 'fulfilled']);
});

test('documents that were damaged since are made again', async () => {
  const { assemble } = assembler(await temporaryDirectory());
  const before = fileOf(await assemble(), 'model.sig');
  await writeFile(before.source, 'signature x');
  const after = fileOf(await assemble(), 'model.sig');
  expect(await readFile(after.source, 'utf8')).toBe('signature 2');
  expect(after.sha256).not.toBe(before.sha256);
});

test('what a person said, and another run, make other documents', async () => {
  const { assemble, count } = assembler(await temporaryDirectory());
  await assemble();
  const approval = { by: 'someone', at: '2026-11-28T11:00:00.000Z' };
  await assemble({ ...RELEASE, quality: { approval } } as unknown as ReleaseParts);
  await assemble({ ...RELEASE, run: { ...RELEASE.run, runId: 'c8a3' } });
  expect(count()).toBe(3);
});
