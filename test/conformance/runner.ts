import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Answer, AnswerRequest, Distributions, Runner } from '../../evaluation/runner.ts';
import { isRunning } from '../harness/child-processes.ts';

/** What is to be asked: the example's calculator, merged or on its base; 19 of 20 are right. */
const EVALUATION = fileURLToPath(
  new URL('../../examples/tiny/eval/calculator.jsonl', import.meta.url),
);
const CORRECT = 19;
/** How long an aborted or killed runner may take to be gone. */
const END_TIMEOUT_MS = 5_000;
/** Of the example's model. */
const CONTEXT = 256;
const VOCABULARY = 512;

/** A runner and a look behind it. */
export interface RunnerUnderTest {
  readonly runner: Runner;
  /** Processes that run its model; none for an endpoint, whose server is not its own. */
  processes(): Promise<readonly number[]>;
}

export interface RunnerKind {
  readonly name: string;
  start(signal?: AbortSignal): Promise<RunnerUnderTest>;
  /** A prompt that is longer than the context is refused by the runner. False where servers decide. */
  readonly knowsContext: boolean;
}

const signal = new AbortController().signal;

const exercises = readFileSync(EVALUATION, 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as { prompt: string; expected: string });
const requests: AnswerRequest[] = exercises.map(({ prompt }, index) => ask(prompt, { index }));

function ask(prompt: string, settings: Partial<AnswerRequest> = {}): AnswerRequest {
  return { index: 0, prompt, addSpecialTokens: true, newTokensMax: 12, ...settings };
}

async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const each of iterable) all.push(each);
  return all;
}

function inOrder(answers: readonly Answer[]): string[] {
  return [...answers].sort((a, b) => a.index - b.index).map(({ text }) => text);
}

/**
 * What every runner must do with the example's calculator.
 * @param kind starts it; a runner with the adapter, or the merged model
 */
export function testRunner(kind: RunnerKind): void {
  describe(`${kind.name} as a runner`, () => {
    let tested: RunnerUnderTest;
    let runner: Runner;
    let answers: Answer[];
    beforeAll(async () => {
      tested = await kind.start();
      runner = tested.runner;
      answers = await collect(runner.answer(requests, signal));
    }, 240_000);
    afterAll(async () => {
      await runner?.close();
    });

    it('says what it is', () => {
      expect(runner.identity).toMatch(/\S/);
    });

    it('answers each prompt once, as PEFT does', () => {
      expect(answers.map(({ index }) => index).sort((a, b) => a - b)).toEqual([...requests.keys()]);
      const texts = inOrder(answers);
      const correct = exercises.filter(({ expected }, index) => texts[index] === expected);
      expect(correct).toHaveLength(CORRECT);
    });

    it('keeps spaces before an answer, and shows no special token', () => {
      for (const { text } of answers) expect(text).toMatch(/^ \[\d+\]$/);
    });

    it('answers the same again, in another order and in other company', async () => {
      const again = await collect(runner.answer([...requests].reverse().slice(3), signal));
      for (const { index, text } of again) {
        expect(text).toBe(answers.find((answer) => answer.index === index)?.text);
      }
      const [alone] = await collect(runner.answer([requests[5]!], signal));
      expect(alone?.text).toBe(inOrder(answers)[5]);
    });

    it('yields what is answered before all is', async () => {
      const seen: number[] = [];
      for await (const { index } of runner.answer(requests, signal)) {
        seen.push(index);
        if (seen.length === 2) break;
      }
      expect(new Set(seen).size).toBe(2);
      // And what was left lying does not get into the next answers.
      expect(await collect(runner.answer([ask('Q: 9+1 =')], signal))).toMatchObject([
        { index: 0, text: ' [10]' },
      ]);
    });

    it('stops at the end of an answer, and at the number of tokens', async () => {
      const [long] = await collect(runner.answer([ask('Q: 9+1 =', { newTokensMax: 100 })], signal));
      expect(long?.text).toBe(' [10]');
      const [short] = await collect(runner.answer([ask('Q: 9+1 =', { newTokensMax: 1 })], signal));
      expect(short?.text.length).toBeLessThan(' [10]'.length);
      expect(' [10]'.startsWith(short?.text ?? '?')).toBe(true);
    });

    it('takes prompts of any kind', async () => {
      const prompts = [
        '',
        'é 日本 🎉\u0000\u202e',
        '</s><s>',
        'a'.repeat(100),
        '\n\n \n',
        'Q: 9+1 =',
      ];
      const asked = prompts.map((prompt, index) => ask(prompt, { index, newTokensMax: 4 }));
      expect(await collect(runner.answer(asked, signal))).toHaveLength(prompts.length);
    });

    it('has nothing to do with no requests', async () => {
      expect(await collect(runner.answer([], signal))).toEqual([]);
    });

    it('refuses a prompt that is longer than the context, by its number, and goes on', async () => {
      if (kind.knowsContext) {
        const asked = ask('Q: 9+1 = '.repeat(CONTEXT), { index: 41 });
        const answering = collect(runner.answer([asked], signal));
        await expect(answering).rejects.toMatchObject({ code: 'evaluate.runner-failed' });
        await expect(answering).rejects.toThrow(/prompt 41 has \d+ tokens, more than .*256/i);
      }
      expect(await collect(runner.answer([requests[0]!], signal))).toHaveLength(1);
    });

    it('stops answering within seconds when it is aborted, with the reason', async () => {
      const abort = new AbortController();
      const reason = new Error('enough');
      const started = Date.now();
      const answering = (async () => {
        for await (const _ of runner.answer(requests, abort.signal)) abort.abort(reason);
      })();
      await expect(answering).rejects.toBe(reason);
      expect(Date.now() - started).toBeLessThan(END_TIMEOUT_MS);
      await expect(collect(runner.answer(requests, abort.signal))).rejects.toBe(reason);
    });

    testDistributions(() => runner);
    testEnd(kind, () => tested);
  });
}

/** What a runner that tells distributions says of them. */
function testDistributions(get: () => Runner): void {
  const text = 'Q: 9+1 = [10]';

  async function distributionsOf(positionsMax?: number): Promise<Distributions | undefined> {
    const limit = positionsMax === undefined ? {} : { positionsMax };
    const request = { index: 3, text, addSpecialTokens: true, ...limit };
    const runner = get();
    if (runner.distributions === undefined) return undefined;
    const [result, ...more] = await collect(runner.distributions([request], signal));
    expect(more).toEqual([]);
    return result;
  }

  it('tells for each position what comes next, if it can', async () => {
    const whole = await distributionsOf();
    if (whole === undefined) return;
    const { tokens, from, vocabulary, values } = whole;
    expect([whole.index, from, vocabulary]).toEqual([3, 0, VOCABULARY]);
    expect(values.length).toBe(tokens.length * vocabulary);
    // The trained answer is what the model expects: from " [" on, each token is the likeliest.
    const last = [...tokens.keys()].slice(-4, -1);
    const right = last.filter((at) => argmax(row(whole, at)) === tokens[at + 1]);
    expect(right).toHaveLength(3);
    expect(values.every(Number.isFinite)).toBe(true);
    if (!whole.areLogProbabilities) return;
    const sums = [...tokens.keys()].map((at) =>
      row(whole, at).reduce((s, v) => s + Math.exp(v), 0),
    );
    for (const sum of sums) expect(sum).toBeCloseTo(1, 3);
  });

  it('tells the last positions alone as it tells all', async () => {
    const whole = await distributionsOf();
    const part = await distributionsOf(3);
    if (whole === undefined || part === undefined) return;
    expect(part.tokens).toEqual(whole.tokens);
    expect(part.from).toBe(whole.tokens.length - 3);
    expect(part.values.length).toBe(3 * VOCABULARY);
    const same = whole.values.subarray(part.from * VOCABULARY);
    const differences = part.values.map((value, at) => Math.abs(value - same[at]!));
    expect(Math.max(...differences)).toBeLessThan(1e-3);
    expect((await distributionsOf(1000))?.from).toBe(0);
  });
}

function row({ values, vocabulary }: Distributions, position: number): number[] {
  return [...values.subarray(position * vocabulary, (position + 1) * vocabulary)];
}

function argmax(values: readonly number[]): number {
  return values.indexOf(Math.max(...values));
}

/** How it ends: these tests leave nothing to ask. */
function testEnd(kind: RunnerKind, get: () => RunnerUnderTest): void {
  it('fails clearly when its model is killed, and leaves no process', async () => {
    const { runner, processes } = get();
    const pids = await processes();
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await runner.close();
    await runner.close();
    for (const pid of pids) {
      await expect.poll(() => isRunning(pid), { timeout: 30_000 }).toBe(false);
    }
    const error = await collect(runner.answer(requests, signal)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: expect.stringMatching(/^(tool|evaluate)\./) });
    expect((error as Error).message).not.toContain('\n    at ');
  });

  it('is not started for a signal that has aborted', async () => {
    const reason = new Error('never mind');
    await expect(kind.start(AbortSignal.abort(reason))).rejects.toBe(reason);
  });
}
