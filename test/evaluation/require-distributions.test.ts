import { describe, expect, it } from 'vitest';
import type { RecipeSuite } from '../../config/release-quality.ts';
import { requireDistributions } from '../../evaluation/require-distributions.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import { stepOf, suiteOf } from './gate/gate-input.ts';

const OWN: LlamaCpp = {
  ...{ origin: 'setting', version: 'b1', directory: '/own/llama.cpp', converter: '/own' },
  programs: { 'llama-server': '/own/llama.cpp/llama-server' },
};
const INSTALLED: LlamaCpp = { ...OWN, modules: '/tools/node_modules', libraries: '/tools/lib' };

const CANDIDATES = [
  stepOf('merged'),
  stepOf('gguf-f16'),
  { ...stepOf('gguf-q8_0'), comparedWith: 'gguf-f16' },
];
const demand = (settings: Partial<RecipeSuite>, llamaCpp?: LlamaCpp) => () =>
  requireDistributions(CANDIDATES, [suiteOf(settings)], llamaCpp);

describe("a llama.cpp of the user's own, whose server tells no probabilities", () => {
  it('is refused where a suite has text', () => {
    expect(demand({ text: '/prose.txt' }, OWN)).toThrow(
      /suite "support" asks for the perplexity of its text of gguf-f16.*\/own\/llama\.cpp/,
    );
  });

  it('is refused where a suite has max_kl and the file is compared with one', () => {
    expect(demand({ klMax: 0.1 }, OWN)).toThrow(/asks for the max_kl of gguf-q8_0/);
  });

  it('is said to stand in the way of the installed one where it is on PATH', () => {
    const onPath = { ...OWN, origin: 'path' } as const;
    expect(demand({ klMax: 0.1 }, onPath)).toThrow('take that one off PATH');
    expect(demand({ klMax: 0.1 }, OWN)).toThrow('unset WELDLINE_LLAMA_CPP');
  });

  it('does where answers are all that is asked for', () => {
    expect(demand({}, OWN)).not.toThrow();
  });

  it('is no matter where the libraries are there, or no llama.cpp at all', () => {
    expect(demand({ text: '/prose.txt', klMax: 0.1 }, INSTALLED)).not.toThrow();
    expect(demand({ text: '/prose.txt', klMax: 0.1 })).not.toThrow();
  });
});
