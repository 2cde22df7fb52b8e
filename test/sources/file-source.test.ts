import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openFileSource } from '../../sources/file-source.ts';
import { testByteSource } from '../conformance/byte-source.ts';

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'weldline-file-'));
});
afterEach(() => rm(directory, { recursive: true }));

testByteSource('openFileSource', async (content) => {
  const file = path.join(directory, 'weights');
  await writeFile(file, content);
  return { source: await openFileSource(file) };
});

it('names the file that is missing', async () => {
  const file = path.join(directory, 'absent');
  await expect(openFileSource(file)).rejects.toMatchObject({
    code: 'source.not-found',
    message: `There is no file ${file}.`,
  });
});

it('does not take a directory for a file', async () => {
  await expect(openFileSource(directory)).rejects.toMatchObject({ code: 'source.not-found' });
});

it('notices a file that shrank after it was opened', async () => {
  const file = path.join(directory, 'weights');
  await writeFile(file, Buffer.alloc(1000));
  const source = await openFileSource(file);
  await truncate(file, 400);
  await expect(source.read(0, 1000)).rejects.toMatchObject({
    code: 'disk.read-failed',
    message: expect.stringContaining('ends at byte 400'),
  });
  await source.close();
});
