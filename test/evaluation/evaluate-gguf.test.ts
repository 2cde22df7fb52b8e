/** GGUF files of the example as candidates, with the real llama.cpp. */
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import type { CandidateStep } from '../../evaluation/candidate.ts';
import type { CandidateModel, EvaluationTools } from '../../evaluation/candidate-runner.ts';
import { evaluateCandidate } from '../../evaluation/evaluate-candidate.ts';
import { loadSuites } from '../../evaluation/load-suites.ts';
import type { SuiteResult } from '../../evaluation/results.ts';
import type { Suite } from '../../evaluation/suite.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { testLlamaCpp } from '../tools/test-tools.ts';
import { type TinyGguf, tinyGguf } from '../tools/tiny-gguf.ts';

const TINY = fileURLToPath(new URL('../../examples/tiny', import.meta.url));
const HALF: CandidateStep = {
  ...{ id: 'gguf-f16', kind: 'gguf', conversion: 'gguf-f16', runner: 'llama.cpp' },
  ...{ suites: ['sums'], referenceOf: ['sums'] },
};
const QUANTIZED: CandidateStep = {
  ...{ id: 'gguf-q8_0', kind: 'gguf', conversion: 'gguf-q8_0', runner: 'llama.cpp' },
  ...{ suites: ['sums'], comparedWith: 'gguf-f16' },
};

let gguf: TinyGguf;
let suites: readonly Suite[];
let tools: EvaluationTools;

beforeAll(async () => {
  gguf = await tinyGguf();
  suites = await loadSuites(
    [
      {
        ...{ id: 'sums', data: `${TINY}/eval/calculator.jsonl`, adapter: 'calculator' },
        ...{ matcher: 'exact', newTokensMax: 12, dropMax: 0 },
      },
    ],
    `${TINY}/base`,
  );
  tools = { llamaCpp: await testLlamaCpp(), variables: childVariables(), threads: 1 };
}, 240_000);

function evaluate(
  step: CandidateStep,
  model: CandidateModel,
  directory: string,
  given = tools,
): Promise<readonly SuiteResult[]> {
  const references = { 'gguf-f16': 'a'.repeat(64) };
  const { signal } = new AbortController();
  return evaluateCandidate({ step, suites, model, references, tools: given, directory, signal });
}

describe('the evaluation of GGUF files', () => {
  it('compares a quantized one with the one of 16 bits, and keeps what it found', async () => {
    const directory = await temporaryDirectory();
    const half = { ggufFile: gguf.mergedF16, digest: 'a'.repeat(64) };
    const quantized = { ggufFile: gguf.mergedQ8, digest: 'b'.repeat(64) };
    const [reference] = await evaluate(HALF, half, directory);
    expect(reference).toMatchObject({ candidate: 'gguf-f16', score: 0.95 });
    expect(reference!.runner).toMatch(/^llama\.cpp v\d/);
    expect(reference).not.toHaveProperty('comparison');
    const results = await evaluate(QUANTIZED, quantized, directory);
    expect(results[0]).toMatchObject({ candidate: 'gguf-q8_0', score: 0.95 });
    const { comparison } = results[0]!;
    expect(comparison).toMatchObject({ with: 'gguf-f16', tokenizedDifferently: [] });
    expect(comparison!.klMean).toBeGreaterThan(0);
    expect(comparison!.klMean).toBeLessThan(0.01);
    expect(comparison!.top1Agreement).toBeGreaterThan(0.95);

    const nothing = { ...tools, llamaCpp: { ...tools.llamaCpp!, modules: '/nowhere' } };
    expect(await evaluate(QUANTIZED, quantized, directory, nothing)).toEqual(results);
  });

  it('finds no difference between a file and itself', async () => {
    const directory = await temporaryDirectory();
    const half = { ggufFile: gguf.mergedF16, digest: 'a'.repeat(64) };
    await evaluate(HALF, half, directory);
    const same = { ...half, digest: 'c'.repeat(64) };
    const [{ comparison } = {}] = await evaluate(QUANTIZED, same, directory);
    expect(comparison).toMatchObject({
      klMean: 0,
      klMax: 0,
      logitDifferenceMax: 0,
      top1Agreement: 1,
    });
  });

  it('says of a damaged file that it cannot be run, and keeps nothing', async () => {
    const directory = await temporaryDirectory();
    const damaged = { ggufFile: `${TINY}/base/config.json`, digest: 'd'.repeat(64) };
    const evaluating = evaluate(HALF, damaged, directory);
    await expect(evaluating).rejects.toMatchObject({ code: 'evaluate.runner-failed' });
    // Nor the second time.
    await expect(evaluate(HALF, damaged, directory)).rejects.toThrow(/config\.json/);
  });
});
