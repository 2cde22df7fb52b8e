/** Runners that need torch: one process of it serves this file, since importing it takes longest. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import { Secret } from '../../config/secret.ts';
import { AnswerJournal } from '../../evaluation/answer-journal.ts';
import { evaluateCandidate } from '../../evaluation/evaluate-candidate.ts';
import { loadSuites } from '../../evaluation/load-suites.ts';
import type { Runner } from '../../evaluation/runner.ts';
import { startEndpointRunner } from '../../evaluation/runners/endpoint-runner.ts';
import {
  startTransformersRunner,
  transformersIdentity,
} from '../../evaluation/runners/transformers-runner.ts';
import { SuiteFolder } from '../../evaluation/suite-folder.ts';
import { testRunner } from '../conformance/runner.ts';
import { descendantsWith, isRunning } from '../harness/child-processes.ts';
import { type OpenAiServer, startOpenAiServer } from '../harness/openai-server.ts';
import { testPythonTools } from '../tools/test-tools.ts';

const TINY = fileURLToPath(new URL('../../examples/tiny', import.meta.url));
const KEY = 'sk-test-1234567890';

let directory: string;
/** The calculator on its base, not merged. */
let shared: Promise<Runner> | undefined;
let server: OpenAiServer | undefined;
let logFile: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-runners-'));
  logFile = join(directory, 'runner.log');
});
afterAll(async () => {
  await server?.close();
  await (await shared?.catch(() => undefined))?.close();
  await rm(directory, { recursive: true, force: true });
});

async function start(model: string, adapter?: string, signal?: AbortSignal): Promise<Runner> {
  const python = await testPythonTools();
  const variables = childVariables();
  return startTransformersRunner({
    model,
    adapter,
    python,
    variables,
    threads: 2,
    signal,
    logFile,
  });
}

function startCalculator(signal?: AbortSignal): Promise<Runner> {
  if (signal !== undefined) return start(`${TINY}/base`, undefined, signal);
  shared ??= start(`${TINY}/base`, `${TINY}/adapters/calculator`);
  return shared;
}

testRunner({
  name: 'an endpoint',
  knowsContext: false,
  async start(signal) {
    if (server === undefined && signal === undefined) {
      server = await startOpenAiServer({ models: { sums: await startCalculator() }, key: KEY });
    }
    const options = { url: server!.url, model: 'sums', key: new Secret(KEY), signal };
    return { runner: await startEndpointRunner(options), processes: async () => [] };
  },
});

describe('an endpoint', () => {
  it('is left in peace by a runner that was closed', async () => {
    await expect.poll(() => server!.open(), { timeout: 30_000 }).toBe(0);
  });

  it('is asked for what the model goes on with, and for nothing at random', () => {
    expect(server!.requests[0]).toEqual({
      model: 'sums',
      prompt: 'Q: 9+1 =',
      max_tokens: 12,
      temperature: 0,
      stream: true,
    });
  });
});

describe('an evaluation whose process is killed', () => {
  const ANSWERED = 9;

  it('goes on where it was, and asks nothing again that was answered', async () => {
    let isHanging = true;
    const models = { served: await startCalculator() };
    const intercept = (attempt: number) => isHanging && attempt > ANSWERED;
    const hanging = await startOpenAiServer({ models, intercept });
    onTestFinished(() => hanging.close());
    const recipe = {
      adapter: 'calculator',
      matcher: 'exact',
      newTokensMax: 12,
      dropMax: 0,
    } as const;
    const data = `${TINY}/eval/calculator.jsonl`;
    const suites = await loadSuites([{ id: 'sums', data, ...recipe }], `${TINY}/base`);
    const options = {
      step: { id: 'merged', kind: 'merged', runner: 'endpoint', suites: ['sums'] } as const,
      suites,
      model: {
        digest: 'a'.repeat(64),
        endpoint: { url: hanging.url, models: { merged: 'served' } },
      },
      tools: { variables: {} },
      directory: join(directory, 'killed'),
    };
    const script = fileURLToPath(new URL('evaluation-child.ts', import.meta.url));
    const child = execa(process.execPath, [script, JSON.stringify(options)], { reject: false });
    const journal = new SuiteFolder(options.directory, {
      artefactDigest: options.model.digest,
      suiteDigest: suites[0]!.digest,
      runner: `endpoint ${hanging.url}, model served`,
    }).journal;
    const answered = async () => [...(await AnswerJournal.read(journal)).keys()];
    await expect.poll(answered, { timeout: 30_000 }).toHaveLength(ANSWERED);
    child.kill('SIGKILL');
    expect(await child).toMatchObject({ signal: 'SIGKILL' });
    const before = await answered();
    expect(before).toHaveLength(ANSWERED);

    isHanging = false;
    const signal = new AbortController().signal;
    const [result] = await evaluateCandidate({ ...options, signal });
    expect(result!.score).toBe(0.95);
    for (const index of before) {
      const { prompt } = suites[0]!.exercises[index]!;
      expect(hanging.requests.filter((request) => request['prompt'] === prompt)).toHaveLength(1);
    }
  });
});

testRunner({
  name: 'transformers',
  knowsContext: true,
  start: async (signal) => ({
    runner: await startCalculator(signal),
    processes: () => descendantsWith('transformers_runner.py'),
  }),
});

describe('transformers', () => {
  it('tells its versions, and writes what it does to the log', async () => {
    const runner = await startCalculator();
    expect(runner.identity).toBe(transformersIdentity(await testPythonTools()));
    expect(runner.identity).toMatch(/^transformers \d+\.\d+\.\d+, torch \d.*, peft \d/);
    expect(await readFile(logFile, 'utf8')).toContain('loading the adapter');
  });

  it('is gone at once when it is aborted while it starts', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const starting = start(`${TINY}/base`, undefined, abort.signal);
    const running = () => descendantsWith('transformers_runner.py');
    // A second, which is the default, may pass on a busy machine before anything runs.
    const patience = { timeout: 30_000 };
    await expect.poll(async () => (await running()).length, patience).toBeGreaterThan(0);
    const pids = await running();
    abort.abort(reason);
    await expect(starting).rejects.toBe(reason);
    for (const pid of pids) await expect.poll(() => isRunning(pid), patience).toBe(false);
  });

  it('refuses a model that needs code of its own, which is not run', async () => {
    const model = join(directory, 'remote-code');
    await cp(`${TINY}/base`, model, { recursive: true });
    const config = JSON.parse(await readFile(join(model, 'config.json'), 'utf8')) as object;
    const autoMap = { AutoConfig: 'evil.Config', AutoModelForCausalLM: 'evil.Model' };
    const custom = { ...config, model_type: 'own', auto_map: autoMap };
    await writeFile(join(model, 'config.json'), JSON.stringify(custom));
    const trace = join(directory, 'was-run');
    await writeFile(join(model, 'evil.py'), `open(${JSON.stringify(trace)}, "w")\n`);
    const starting = start(model);
    await expect(starting).rejects.toMatchObject({ code: 'evaluate.runner-failed' });
    await expect(starting).rejects.toThrow(
      /needs program code of its own, which weldline never runs/,
    );
    await expect(readFile(trace)).rejects.toThrow('ENOENT');
  });

  it('computes in float32 with weights of bitsandbytes, whatever dtype the checkpoint names', async () => {
    const logits: Float32Array[] = [];
    for (const dtype of ['float32', 'bfloat16']) {
      const runner = await start(await packedBase(dtype));
      const requests = [{ index: 0, text: 'w1 w2 w3 w4', addSpecialTokens: false }];
      for await (const { values } of runner.distributions!(
        requests,
        new AbortController().signal,
      )) {
        logits.push(values);
      }
      await runner.close();
    }
    expect(logits[0]).toHaveLength(4 * 32);
    expect(logits[1]).toEqual(logits[0]);
  });
});

/** A base in NF4 with a tokenizer of 32 words. */
async function packedBase(computeDtype: string): Promise<string> {
  const model = join(directory, `nf4-${computeDtype}`);
  const golden = fileURLToPath(new URL('../golden/quantized/nf4-bf16/base', import.meta.url));
  await cp(golden, model, { recursive: true });
  const config = await readFile(join(model, 'config.json'), 'utf8');
  const changed = config.replace(/("bnb_4bit_compute_dtype": )"\w+"/, `$1"${computeDtype}"`);
  await writeFile(join(model, 'config.json'), changed);
  const vocab = Object.fromEntries(Array.from({ length: 32 }, (_, id) => [`w${id}`, id]));
  const tokenizer = {
    ...{ version: '1.0', added_tokens: [], pre_tokenizer: { type: 'Whitespace' } },
    model: { type: 'WordLevel', vocab, unk_token: 'w0' },
  };
  await writeFile(join(model, 'tokenizer.json'), JSON.stringify(tokenizer));
  const settings = { tokenizer_class: 'PreTrainedTokenizerFast' };
  await writeFile(join(model, 'tokenizer_config.json'), JSON.stringify(settings));
  return model;
}
