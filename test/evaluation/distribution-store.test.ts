import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  hasDistributions,
  openDistributions,
  writeDistributions,
} from '../../evaluation/distribution-store.ts';
import type { Distributions } from '../../evaluation/runner.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { distributionsOf, streamOf } from './given-distributions.ts';

const newPlace = async () => join(await temporaryDirectory(), 'suite', 'reference');

const texts = [
  distributionsOf([1, 2, 3, 4, 5, 6], 2, { index: 2, tokens: Int32Array.of(4, 0, 9), from: 1 }),
  distributionsOf([-1, 0.1], 2, { index: 0 }),
];

describe('the store of distributions', () => {
  it('gives back what it was given, in any order', async () => {
    const place = await newPlace();
    expect(await hasDistributions(place)).toBe(false);
    await writeDistributions(place, streamOf(texts));
    expect(await hasDistributions(place)).toBe(true);
    const stored = await openDistributions(place);
    expect(stored.indices).toEqual([2, 0]);
    expect(await stored.read(0)).toEqual(texts[1]);
    expect(await stored.read(2)).toEqual(texts[0]);
    await stored.close();
    expect((await readdir(place)).sort()).toEqual(['distributions.f32', 'distributions.json']);
  });

  it('writes the same bytes for the same distributions, and replaces others', async () => {
    const [one, other] = [await newPlace(), await newPlace()];
    await writeDistributions(one, streamOf([texts[1]!]));
    await writeDistributions(one, streamOf(texts));
    await writeDistributions(other, streamOf(texts));
    for (const name of await readdir(one)) {
      expect(await readFile(join(one, name))).toEqual(await readFile(join(other, name)));
    }
  });

  it('looks unfinished when the model failed in between, also after it was finished', async () => {
    const place = await newPlace();
    await writeDistributions(place, streamOf(texts));
    async function* failing(): AsyncIterable<Distributions> {
      yield texts[0]!;
      throw new Error('the model is gone');
    }
    await expect(writeDistributions(place, failing())).rejects.toThrow('the model is gone');
    expect(await hasDistributions(place)).toBe(false);
    await expect(openDistributions(place)).rejects.toMatchObject({
      code: 'evaluate.distributions-damaged',
    });
  });

  it.each([
    [
      'a changed byte',
      (bytes: Buffer) => Buffer.concat([Buffer.of(bytes[0]! ^ 1), bytes.subarray(1)]),
    ],
    ['a byte less', (bytes: Buffer) => bytes.subarray(0, -1)],
  ])('notices %s', async (_, damage) => {
    const place = await newPlace();
    await writeDistributions(place, streamOf(texts));
    const file = join(place, 'distributions.f32');
    await writeFile(file, damage(await readFile(file)));
    const stored = await openDistributions(place);
    const reading = Promise.all(stored.indices.map((index) => stored.read(index)));
    await expect(reading).rejects.toMatchObject({ code: 'evaluate.distributions-damaged' });
    await stored.close();
  });

  it('takes a manifest of another kind for none', async () => {
    const place = await newPlace();
    await mkdir(place, { recursive: true });
    await writeFile(join(place, 'distributions.json'), '{"format": "weldline.conversion"}');
    expect(await hasDistributions(place)).toBe(false);
  });

  it('keeps no more than its limit, and asks for no more', async () => {
    const place = await newPlace();
    let asked = 0;
    async function* endless(): AsyncIterable<Distributions> {
      for (;;) yield distributionsOf([1, 2], 2, { index: asked++ });
    }
    await writeDistributions(place, endless(), 20);
    const stored = await openDistributions(place);
    expect(stored.indices).toEqual([0, 1]);
    expect(asked).toBe(3);
    await stored.close();
  });
});
