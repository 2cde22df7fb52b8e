/** What the number is, is compared with transformers in llama-cpp-runner.test.ts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { measurePerplexity, windowsOf } from '../../evaluation/perplexity.ts';
import type { Distributions, Runner } from '../../evaluation/runner.ts';
import { distributionsOf, streamOf } from './given-distributions.ts';

const signal = new AbortController().signal;

/** A runner for windows that are known already. */
function runnerOf(windows: readonly Distributions[]): Runner {
  return {
    identity: 'known',
    answer: () => streamOf([]),
    distributions: () => streamOf(windows),
    close: async () => {},
  };
}

/** A window of which each of the two tokens has a logit of its own, in every row. */
function window(index: number, tokens: number[], logits: [number, number]): Distributions {
  const values = tokens.flatMap(() => logits);
  return distributionsOf(values, 2, { index, tokens: Int32Array.from(tokens) });
}

describe('windowsOf', () => {
  it('cuts any text into windows that are whole characters and not too long', () => {
    const characters = fc.constantFrom('a', 'bc', ' ', '\n', '  ', 'é', '🙂', '世');
    const texts = fc.array(characters, { maxLength: 400 }).map((each) => each.join(''));
    fc.assert(
      fc.property(texts, fc.integer({ min: 4, max: 60 }), (text, contextTokens) => {
        const windows = windowsOf({ contextTokens }, text);
        expect(windows.join('')).toBe(text);
        for (const each of windows) {
          expect(each.length).toBeGreaterThan(0);
          expect(each.length).toBeLessThanOrEqual(contextTokens);
          expect(each.isWellFormed()).toBe(true);
        }
      }),
    );
  });

  it('cuts after spaces where it can, into 2048 characters or what the model takes', () => {
    const words = 'A sentence of words. '.repeat(400);
    const windows = windowsOf({}, words);
    expect(windows.length).toBe(5);
    for (const each of windows) expect(each).toMatch(/^\S.* $/s);
    expect(windowsOf({ contextTokens: 1e6 }, words)).toEqual(windows);
    expect(windowsOf({ contextTokens: 100 }, words)[0]!.length).toBeLessThanOrEqual(100);
    expect(windowsOf({}, '')).toEqual([]);
  });
});

describe('measurePerplexity', () => {
  it('is the vocabulary of a model that knows nothing, and 1 of one that knows all', async () => {
    const nothing = runnerOf([window(0, [0, 1, 1, 0, 1], [3, 3])]);
    expect(await measurePerplexity(nothing, 'text', signal)).toEqual({ value: 2, tokens: 2 });
    const all = runnerOf([window(0, [0, 1, 1, 1], [-200, 200])]);
    expect(await measurePerplexity(all, 'text', signal)).toEqual({ value: 1, tokens: 2 });
  });

  it('does not depend on the order in which windows come', async () => {
    const windows = [
      window(0, [0, 1, 0, 1], [0.1, 0.2]),
      window(1, [1, 1, 0, 0, 1], [1.7, 1e-3]),
      window(2, [0, 1, 1], [-3, 0.3]),
    ];
    const one = await measurePerplexity(runnerOf(windows), 'text', signal);
    const other = await measurePerplexity(runnerOf([...windows].reverse()), 'text', signal);
    expect(other).toEqual(one);
  });

  it('refuses a text of nothing, numbers that are none, and a runner that tells none', async () => {
    await expect(measurePerplexity(runnerOf([]), '', signal)).rejects.toMatchObject({
      code: 'evaluate.text-too-short',
    });
    const damaged = runnerOf([window(0, [0, 1, 1], [Number.NaN, 0])]);
    await expect(measurePerplexity(damaged, 'text', signal)).rejects.toMatchObject({
      code: 'evaluate.not-finite',
    });
    const { distributions: _, ...silent } = runnerOf([]);
    await expect(measurePerplexity(silent, 'text', signal)).rejects.toThrow(/known does not give/);
  });
});
