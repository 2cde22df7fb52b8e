import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareDistributions } from '../../evaluation/compare-distributions.ts';
import { writeDistributions } from '../../evaluation/distribution-store.ts';
import type { Distributions } from '../../evaluation/runner.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { distributionsOf, streamOf } from './given-distributions.ts';

interface Golden {
  readonly vocabulary: number;
  readonly cases: readonly {
    readonly name: string;
    readonly reference: readonly number[];
    readonly candidate: readonly number[];
    readonly expected: Readonly<Record<string, number>>;
  }[];
}
const golden = JSON.parse(
  readFileSync(fileURLToPath(new URL('../golden/distributions.json', import.meta.url)), 'utf8'),
) as Golden;

async function compare(reference: readonly Distributions[], candidate: readonly Distributions[]) {
  const directory = join(await temporaryDirectory(), 'reference');
  await writeDistributions(directory, streamOf(reference));
  return await compareDistributions(directory, streamOf(candidate));
}

describe('compareDistributions', () => {
  it.each(golden.cases)('finds what torch finds in float64: $name', async (one) => {
    const { vocabulary } = golden;
    const { expected } = one;
    const found = await compare(
      [distributionsOf(one.reference, vocabulary)],
      [distributionsOf(one.candidate, vocabulary)],
    );
    expect(found.positions).toBe(6);
    expect(found.klMean / expected['klMean']!).toBeCloseTo(1, 9);
    expect(found.klMax / expected['klMax']!).toBeCloseTo(1, 9);
    expect(found.logitDifferenceMax).toBe(expected['logitDifferenceMax']);
    expect(found.top1Agreement).toBeCloseTo(expected['top1Agreement']!, 12);
    expect(found.ofLogProbabilities).toBe(false);

    const ofProbabilities = await compare(
      [distributionsOf(one.reference, vocabulary, { areLogProbabilities: true })],
      [distributionsOf(one.candidate, vocabulary, { areLogProbabilities: true })],
    );
    expect(ofProbabilities.ofLogProbabilities).toBe(true);
    const largest = expected['logProbabilityDifferenceMax']!;
    expect(ofProbabilities.logitDifferenceMax / largest).toBeCloseTo(1, 12);
  });

  const rows = fc.integer({ min: 1, max: 4 }).chain((positions) =>
    fc.integer({ min: 2, max: 9 }).chain((vocabulary) => {
      const length = positions * vocabulary;
      const row = fc.array(fc.float({ min: -60, max: 60, noNaN: true }), {
        minLength: length,
        maxLength: length,
      });
      return fc.record({ vocabulary: fc.constant(vocabulary), one: row, other: row });
    }),
  );

  it('finds no divergence below 0, and none of a model from itself', async () => {
    await fc.assert(
      fc.asyncProperty(rows, async ({ vocabulary, one, other }) => {
        const reference = distributionsOf(one, vocabulary);
        const found = await compare([reference], [distributionsOf(other, vocabulary)]);
        expect(found.klMean).toBeGreaterThanOrEqual(0);
        expect(found.klMax).toBeGreaterThanOrEqual(found.klMean * (1 - 1e-12));
        const same = await compare([reference], [reference]);
        expect(same).toMatchObject({
          klMean: 0,
          klMax: 0,
          logitDifferenceMax: 0,
          top1Agreement: 1,
        });
      }),
      { numRuns: 40 },
    );
  });

  it('depends neither on the order of tokens nor on that of texts nor on a constant', async () => {
    await fc.assert(
      fc.asyncProperty(rows, async ({ vocabulary, one, other }) => {
        const turn = (values: number[]) =>
          values.map((_, at) => {
            const start = at - (at % vocabulary);
            return values[start + ((at + 1) % vocabulary)]!;
          });
        const texts = (values: number[]) => [
          distributionsOf(values, vocabulary),
          distributionsOf(turn(values), vocabulary, { index: 1 }),
        ];
        const found = await compare(texts(one), texts(other).reverse());
        const first = await compare(texts(one).slice(0, 1), texts(other).slice(0, 1));
        expect(found.klMean).toBeCloseTo(first.klMean, 9);
        expect(found.klMax).toBeCloseTo(first.klMax, 9);
        expect(found.positions).toBe(2 * first.positions);

        const doubled = one.map((value) => Math.fround(value) + 64);
        const shifted = await compare(
          [distributionsOf(one, vocabulary)],
          [distributionsOf(doubled, vocabulary)],
        );
        expect(shifted.klMax).toBeLessThan(1e-4);
        expect(shifted.logitDifferenceMax).toBeCloseTo(64, 4);
      }),
      { numRuns: 25 },
    );
  });

  it('lists texts that are tokenised differently and leaves them out', async () => {
    const text = (index: number, tokens: number[], values: number[]) =>
      distributionsOf(values, 2, { index, tokens: Int32Array.from(tokens) });
    const reference = [text(0, [1, 2], [1, 2, 3, 4]), text(3, [1, 7], [1, 2, 3, 4])];
    const candidate = [text(3, [1, 8], [9, 2, 3, 9]), text(0, [1, 2], [1, 2, 3, 4])];
    expect(await compare(reference, candidate)).toEqual({
      positions: 2,
      klMean: 0,
      klMax: 0,
      logitDifferenceMax: 0,
      ofLogProbabilities: false,
      top1Agreement: 1,
      tokenizedDifferently: [3],
    });
    const none = await compare([reference[1]!], [candidate[0]!]);
    expect(none).toMatchObject({ positions: 0, tokenizedDifferently: [3] });
  });

  it('takes a token that neither model can give for no difference', async () => {
    const found = await compare(
      [distributionsOf([1, -Infinity, 2], 3)],
      [distributionsOf([1, -Infinity, 3], 3)],
    );
    expect(found.logitDifferenceMax).toBe(1);
    expect(found.klMean).toBeGreaterThan(0);
  });

  it.each([
    ['NaN', [1, Number.NaN]],
    ['Infinity', [1, Infinity]],
    ['a token that only the reference can give', [1, -Infinity]],
  ])('refuses %s, saying where', async (_, values) => {
    const reference = distributionsOf([1, 1, 1, 1], 2, { index: 4 });
    const candidate = distributionsOf([1, 1, ...values], 2, { index: 4 });
    const outcome = compare([reference], [candidate]);
    await expect(outcome).rejects.toMatchObject({ code: 'evaluate.not-finite' });
    await expect(outcome).rejects.toThrow(/At token 1 of text 4/);
  });

  it.each([
    [
      'vocabularies of other sizes',
      [distributionsOf([1, 2, 3, 4], 4, { tokens: Int32Array.of(0, 1) })],
      /2 and 4 tokens/,
    ],
    ['other positions', [distributionsOf([1, 2], 2, { tokens: Int32Array.of(0, 1) })], /positions/],
    ['a text less', [], /text 0 is missing/],
  ])('refuses %s', async (_, candidate, message) => {
    const outcome = compare([distributionsOf([1, 2, 3, 4], 2)], candidate);
    await expect(outcome).rejects.toMatchObject({ code: 'evaluate.not-comparable' });
    await expect(outcome).rejects.toThrow(message);
  });

  it('asks for no more than was kept', async () => {
    let asked = 0;
    async function* endless(): AsyncIterable<Distributions> {
      for (;;) yield distributionsOf([1, 2], 2, { index: asked++ });
    }
    const directory = join(await temporaryDirectory(), 'reference');
    const kept = [0, 1].map((index) => distributionsOf([1, 2], 2, { index }));
    await writeDistributions(directory, streamOf(kept));
    expect(await compareDistributions(directory, endless())).toMatchObject({ positions: 2 });
    expect(asked).toBe(2);
  });
});
