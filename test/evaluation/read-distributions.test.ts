import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readDistributions } from '../../evaluation/runners/read-distributions.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

/** Two positions of a vocabulary of three. */
const VALUES = Float32Array.of(1, 2, 3, -4, 5.5, -Infinity);
const REPLY = { tokens: [7, 8, 9], from: 1, vocabulary: 3 };

const read = (file: string, reply: Readonly<Record<string, unknown>>) =>
  readDistributions('the runner', file, reply);

it('takes the file away and gives its values', async () => {
  const directory = await temporaryDirectory();
  const file = join(directory, 'logits.f32');
  await writeFile(file, VALUES);
  const { tokens, from, vocabulary, values } = await read(file, REPLY);
  expect({ tokens: [...tokens], from, vocabulary }).toEqual(REPLY);
  expect(values).toEqual(VALUES);
  expect(await readdir(directory)).toEqual([]);
});

it.each([
  ['half a file', VALUES.subarray(0, 3), REPLY, /wrote 12 bytes instead of 24/],
  ['a file that ends in a number', Buffer.alloc(23), REPLY, /wrote 23 bytes instead of 24/],
  ['no file', undefined, REPLY, /wrote no file/],
  ['no tokens', VALUES, { from: 1, vocabulary: 3 }, /replied \{"from":1,"vocabulary":3\}/],
  ['no numbers', VALUES, { ...REPLY, vocabulary: 'three' }, /replied .*three/],
] as const)('blames the runner for %s', async (_, bytes, reply, message) => {
  const file = join(await temporaryDirectory(), 'logits.f32');
  if (bytes !== undefined) await writeFile(file, bytes);
  const reading = read(file, reply);
  await expect(reading).rejects.toMatchObject({ code: 'evaluate.runner-failed' });
  await expect(reading).rejects.toThrow(message);
});
