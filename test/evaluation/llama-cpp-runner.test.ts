import { readFileSync } from 'node:fs';
import { copyFile, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { compareDistributions } from '../../evaluation/compare-distributions.ts';
import { writeDistributions } from '../../evaluation/distribution-store.ts';
import { measurePerplexity } from '../../evaluation/perplexity.ts';
import type { DistributionRequest, Distributions, Runner } from '../../evaluation/runner.ts';
import {
  type LlamaCppRunnerOptions,
  startLlamaCppRunner,
} from '../../evaluation/runners/llama-cpp-runner.ts';
import { testRunner } from '../conformance/runner.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { descendantsWith } from '../harness/child-processes.ts';
import { testLlamaCpp } from '../tools/test-tools.ts';
import { type TinyGguf, tinyGguf } from '../tools/tiny-gguf.ts';

interface Golden {
  readonly tokenized: readonly { text: string; with: number[]; without: number[] }[];
  readonly text: string;
  readonly windows: number;
  readonly tokens: number;
  readonly value: number;
}
const golden = JSON.parse(
  readFileSync(fileURLToPath(new URL('../golden/perplexity.json', import.meta.url)), 'utf8'),
) as Golden;

const signal = new AbortController().signal;
let gguf: TinyGguf;
const started: Runner[] = [];

beforeAll(async () => {
  gguf = await tinyGguf();
}, 240_000);
afterAll(async () => {
  await Promise.all(started.map((runner) => runner.close()));
});

/** One thread, because those of llama.cpp wait by spinning, and tests run beside each other. */
async function start(options: Partial<LlamaCppRunnerOptions> = {}): Promise<Runner> {
  const runner = await startLlamaCppRunner({
    model: gguf.mergedF16,
    llamaCpp: await testLlamaCpp(),
    variables: childVariables(),
    threads: 1,
    ...options,
  });
  started.push(runner);
  return runner;
}

async function collect<T>(iterable: AsyncIterable<T> | undefined): Promise<T[]> {
  const all: T[] = [];
  for await (const each of iterable ?? []) all.push(each);
  return all;
}

async function answersOf(runner: Runner): Promise<string[]> {
  const prompts = ['Q: 9+1 =', 'Q: 5+9 =', 'Q: 4+7 ='];
  const requests = prompts.map((prompt, index) => ({
    ...{ index, prompt, addSpecialTokens: true, newTokensMax: 12 },
  }));
  const answers = await collect(runner.answer(requests, signal));
  return answers.map(({ text }) => text);
}

const request = (text: string, rest: Partial<DistributionRequest> = {}): DistributionRequest => ({
  ...{ index: 0, text, addSpecialTokens: true },
  ...rest,
});

async function distributionsOf(
  runner: Runner,
  requests: readonly DistributionRequest[],
): Promise<Distributions[]> {
  return await collect(runner.distributions?.(requests, signal));
}

testRunner({
  name: 'llama.cpp',
  knowsContext: true,
  start: async (each) => ({
    runner: await start({ signal: each }),
    processes: () => descendantsWith('run-model.ts'),
  }),
});

describe('llama.cpp', () => {
  it('applies an adapter to its base as the merged model has it', async () => {
    const merged = await answersOf(await start());
    expect(merged).toEqual([' [10]', ' [14]', ' [11]']);
    const applied = await start({ model: gguf.baseF32, adapter: gguf.adapter });
    expect(await answersOf(applied)).toEqual(merged);
  });

  it('gives the same bits with any number of threads', async () => {
    const requests = [request('Q: 9+1 = [10]')];
    const [one] = await distributionsOf(await start(), requests);
    const [two] = await distributionsOf(await start({ threads: 2 }), requests);
    expect(one?.values).toEqual(two?.values);
  });

  it('tells how far a quantization is from its source, and nothing of the same model', async () => {
    const directory = join(await temporaryDirectory(), 'reference');
    const requests = ['Q: 9+1 = [10]', 'Q: 5+9 = [14]'].map((text, index) =>
      request(text, { index }),
    );
    const source = await start();
    await writeDistributions(directory, source.distributions!(requests, signal));
    const same = await compareDistributions(directory, source.distributions!(requests, signal));
    expect(same).toMatchObject({ klMean: 0, klMax: 0, logitDifferenceMax: 0, positions: 24 });
    const quantized = await start({ model: gguf.mergedQ8 });
    const found = await compareDistributions(directory, quantized.distributions!(requests, signal));
    expect(found).toMatchObject({ positions: 24, ofLogProbabilities: false });
    expect(found.klMean).toBeGreaterThan(1e-7);
    expect(found.klMean).toBeLessThan(0.02);
    expect(found.logitDifferenceMax).toBeGreaterThan(1e-3);
  });

  it('writes what llama.cpp prints to the log', async () => {
    const logFile = join(await temporaryDirectory(), 'runner.log');
    await start({ logFile });
    expect(await readFile(logFile, 'utf8')).toContain('general.architecture');
  });
});

describe('llama.cpp beside transformers', () => {
  let base: Runner;
  beforeAll(async () => {
    base = await start({ model: gguf.baseF32 });
  });

  it.each(golden.tokenized)('reads the same tokens: $text', async (each) => {
    const read = async (addSpecialTokens: boolean) => {
      const requests = [request(each.text, { addSpecialTokens, positionsMax: 1 })];
      return [...(await distributionsOf(base, requests))[0]!.tokens];
    };
    expect(await read(true)).toEqual(each.with);
    if (each.text !== '') expect(await read(false)).toEqual(each.without);
    else await expect(read(false)).rejects.toThrow(/text 0 is empty/);
  });

  it('differs where llama.cpp puts a space before one that is there', async () => {
    const [told] = await distributionsOf(base, [request(' two', { positionsMax: 1 })]);
    const [plain] = await distributionsOf(base, [request('two', { positionsMax: 1 })]);
    expect(told?.tokens.length).toBe(plain!.tokens.length + 1);
  });

  it('finds the same perplexity', async () => {
    const seen: number[] = [];
    const found = await measurePerplexity(base, golden.text, signal, (done, windows) => {
      expect(windows).toBe(golden.windows);
      seen.push(done);
    });
    expect(seen).toEqual(Array.from({ length: golden.windows }, (_, index) => index + 1));
    expect(found.tokens).toBe(golden.tokens);
    expect(Math.log(found.value)).toBeCloseTo(Math.log(golden.value), 2);
  });

  it('gives each window its own context, so that the text before changes nothing', async () => {
    const [first, , third] = await distributionsOf(base, [
      request('name Anna, team red.'),
      request('3 plus 5 is 8.'),
      request('name Anna, team red.'),
    ]);
    expect(third?.values).toEqual(first?.values);
  });
});

describe('a model that llama.cpp cannot run', () => {
  it.each([
    ['that is not there', async (path: string) => path],
    ['that is no GGUF', async (path: string) => writeFile(path, 'GGUF, says the name')],
    [
      'that was cut off',
      async (path: string) => {
        await copyFile(gguf.mergedF16, path);
        await truncate(path, 3_000_000);
      },
    ],
  ])('is an error for one %s', async (_, make) => {
    const model = join(await temporaryDirectory(), 'model.gguf');
    await make(model);
    const starting = start({ model });
    await expect(starting).rejects.toMatchObject({ code: 'evaluate.runner-failed' });
    await expect(starting).rejects.toThrow(/cannot load .*model\.gguf/);
    expect(await descendantsWith(model)).toEqual([]);
  });

  it('is an error with an adapter for another', async () => {
    const starting = start({ adapter: gguf.mergedF16 });
    await expect(starting).rejects.toThrow(/cannot apply .*merged-f16\.gguf/);
  });

  it('is an error with libraries of another release', async () => {
    const llamaCpp = { ...(await testLlamaCpp()), libraries: await temporaryDirectory() };
    await expect(start({ llamaCpp })).rejects.toThrow(/no library of ggml-base in/);
  });
});
