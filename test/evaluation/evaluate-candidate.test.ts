/** The example's calculator on its base and merged, with the real transformers and PEFT. */
import { appendFile, cp, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { childVariables } from '../../config/environment.ts';
import type { CandidateStep } from '../../evaluation/candidate.ts';
import type { CandidateModel, EvaluationTools } from '../../evaluation/candidate-runner.ts';
import { type EvaluationProgress, evaluateCandidate } from '../../evaluation/evaluate-candidate.ts';
import { loadSuites } from '../../evaluation/load-suites.ts';
import type { SuiteResult } from '../../evaluation/results.ts';
import type { Suite } from '../../evaluation/suite.ts';
import { SuiteFolder } from '../../evaluation/suite-folder.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { testPythonTools } from '../tools/test-tools.ts';

const TINY = fileURLToPath(new URL('../../examples/tiny', import.meta.url));
const ADAPTER = `${TINY}/adapters/calculator`;
const signal = new AbortController().signal;

const REFERENCE: CandidateStep = {
  ...{ id: 'adapter:calculator', kind: 'adapter', runner: 'transformers' },
  ...{ suites: ['sums', 'prose'], referenceOf: ['sums', 'prose'] },
};
const MERGED: CandidateStep = {
  ...{ id: 'merged', kind: 'merged', runner: 'transformers' },
  ...{ suites: ['prose', 'sums'], comparedWith: 'adapter:calculator' },
};

let root: string;
let directory: string;
let suites: readonly Suite[];
let tools: EvaluationTools;
let models: Record<'adapter:calculator' | 'merged', CandidateModel>;
const progress: EvaluationProgress[] = [];
let reference: readonly SuiteResult[];
let merged: readonly SuiteResult[];

function evaluate(
  step: CandidateStep,
  settings: { tools?: EvaluationTools; model?: CandidateModel; directory?: string } = {},
): Promise<readonly SuiteResult[]> {
  const model = models[step.id as keyof typeof models];
  const references = { 'adapter:calculator': models['adapter:calculator'].digest };
  const onProgress = (each: EvaluationProgress) => progress.push(each);
  const given = { model, tools, directory, ...settings };
  return evaluateCandidate({ step, suites, references, signal, onProgress, ...given });
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-evaluate-'));
  directory = join(root, 'evaluations');
  const text = join(root, 'prose.txt');
  const lines = 'Q: 5+4 = [9]\nQ: 2+2 = [4]\nQ: 9+1 = [10]\n'.repeat(3);
  await writeFile(text, lines);
  const common = { adapter: 'calculator', matcher: 'exact', newTokensMax: 12, dropMax: 0 } as const;
  suites = await loadSuites(
    [
      { id: 'sums', data: `${TINY}/eval/calculator.jsonl`, ...common },
      { id: 'prose', text, ...common },
    ],
    `${TINY}/base`,
  );
  const output = join(root, 'merged');
  await mergeDirectories({ base: `${TINY}/base`, adapter: ADAPTER, output });
  models = {
    'adapter:calculator': {
      ...{ directory: `${TINY}/base`, adapter: ADAPTER, tokenizer: output },
      digest: 'a'.repeat(64),
    },
    merged: { directory: output, digest: 'b'.repeat(64) },
  };
  tools = { python: await testPythonTools(), variables: childVariables(), threads: 2 };
  reference = await evaluate(REFERENCE);
  merged = await evaluate(MERGED);
}, 300_000);
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

/** Little-endian bfloat16. */
const NOT_A_NUMBER = Buffer.from([0xc0, 0x7f]);

/** Overwrites the first bytes of a tensor. */
async function overwriteTensor(path: string, name: string, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const head = Buffer.alloc(8);
    await file.read(head, 0, 8, 0);
    const length = Number(head.readBigUInt64LE());
    const header = Buffer.alloc(length);
    await file.read(header, 0, length, 8);
    const [begin] = JSON.parse(header.toString())[name].data_offsets;
    await file.write(bytes, 0, bytes.length, 8 + length + begin);
  } finally {
    await file.close();
  }
}

/** Tools with the right versions, and nothing there that could be started. */
function noTools(): EvaluationTools {
  return { ...tools, python: { ...tools.python!, python: join(root, 'no-python') } };
}

describe('the evaluation of a candidate', () => {
  it('scores answers, and measures text', () => {
    const [sums, prose] = reference;
    expect(sums).toMatchObject({
      candidate: 'adapter:calculator',
      suite: 'sums',
      suiteDigest: suites[0]!.digest,
      artefactDigest: 'a'.repeat(64),
      score: 0.95,
    });
    expect(sums!.runner).toMatch(/^transformers /);
    expect(sums!.answers.map(({ index }) => index)).toEqual([...Array(20).keys()]);
    expect(sums!.answers[0]).toEqual({ index: 0, text: ' [10]', correct: true });
    expect(sums!.answers.filter(({ correct }) => correct)).toHaveLength(19);
    expect(sums).not.toHaveProperty('perplexity');
    expect(prose).toMatchObject({ suite: 'prose', answers: [] });
    expect(prose).not.toHaveProperty('score');
    expect(prose!.perplexity!.value).toBeGreaterThan(1);
    expect(prose!.perplexity!.tokens).toBeGreaterThan(10);
    for (const result of reference) expect(result).not.toHaveProperty('comparison');
  });

  it('compares the merged model with the adapter on its base', () => {
    expect(merged.map(({ suite }) => suite)).toEqual(['prose', 'sums']);
    for (const { comparison } of merged) {
      expect(comparison).toMatchObject({
        with: 'adapter:calculator',
        ofLogProbabilities: false,
        tokenizedDifferently: [],
      });
      expect(comparison!.positions).toBeGreaterThan(40);
      // The merge rounds once, to bfloat16: near, and not the same.
      expect(comparison!.klMean).toBeGreaterThan(0);
      expect(comparison!.klMean).toBeLessThan(1e-3);
      expect(comparison!.top1Agreement).toBeGreaterThan(0.95);
    }
    // Prompts of 8 or 9 tokens, and the answers after them.
    expect(merged[1]!.comparison!.positions).toBeGreaterThan(20 * 9);
    expect(merged[1]!.score).toBe(0.95);
  });

  it('tells how far it is', () => {
    const sums = progress.filter(({ suite, phase }) => suite === 'sums' && phase === 'answers');
    expect(sums[0]).toEqual({ suite: 'sums', phase: 'answers', done: 0, total: 20 });
    expect(sums.map(({ done }) => done).slice(0, 21)).toEqual([...Array(21).keys()]);
    expect(new Set(progress.map(({ phase }) => phase))).toEqual(
      new Set(['answers', 'perplexity', 'distributions']),
    );
  });

  it('starts nothing for what was evaluated before, under whatever name', async () => {
    expect(await evaluate(REFERENCE, { tools: noTools() })).toEqual(reference);
    expect(await evaluate(MERGED, { tools: noTools() })).toEqual(merged);
    const renamed = suites.map((suite) => ({ ...suite, id: suite.id.toUpperCase() }));
    const step = { ...REFERENCE, id: 'other', suites: ['SUMS'], referenceOf: [] };
    const [result] = await evaluateCandidate({
      ...{ step, suites: renamed, model: models['adapter:calculator'], tools: noTools() },
      ...{ directory, signal },
    });
    expect(result).toEqual({ ...reference[0], candidate: 'other', suite: 'SUMS' });
  });

  it('asks again when what decides the answers has changed', async () => {
    const changed = { ...models.merged, digest: 'c'.repeat(64) };
    const starting = evaluate(MERGED, { tools: noTools(), model: changed });
    await expect(starting).rejects.toMatchObject({ code: 'tool.not-found' });
    const newer = { ...noTools().python!, versions: { ...tools.python!.versions, torch: '99.0' } };
    const other = evaluate(MERGED, { tools: { ...tools, python: newer } });
    await expect(other).rejects.toMatchObject({ code: 'tool.not-found' });
    const edited = suites.map((suite) => ({ ...suite, digest: 'd'.repeat(64) }));
    const again = evaluateCandidate({
      ...{ step: { ...REFERENCE, suites: ['sums'] }, suites: edited, tools: noTools() },
      ...{ model: models['adapter:calculator'], directory, signal },
    });
    await expect(again).rejects.toMatchObject({ code: 'tool.not-found' });
  });

  it('does not ask for what is in a journal, whose end may be cut off', async () => {
    const elsewhere = join(root, 'elsewhere');
    const step = { ...MERGED, suites: ['sums'] };
    const { comparedWith: _, ...alone } = step;
    const folder = new SuiteFolder(elsewhere, {
      artefactDigest: models.merged.digest,
      suiteDigest: suites[0]!.digest,
      runner: merged[0]!.runner,
    });
    await folder.make();
    const lines = merged[1]!.answers.map(({ index }) =>
      JSON.stringify({ index, text: `#${index}` }),
    );
    await writeFile(folder.journal, `\n${lines.slice(0, 19).join('\n')}\n{"index": 19, "te`);
    await expect(evaluate(alone, { directory: elsewhere, tools: noTools() })).rejects.toMatchObject(
      { code: 'tool.not-found' },
    );
    await appendFile(
      folder.journal,
      `xt": 5}\nnot JSON\n{"index": 3, "text": "twice"}\n${lines[19]}\n`,
    );
    const [result] = await evaluate(alone, { directory: elsewhere, tools: noTools() });
    expect(result!.answers.map(({ text }) => text)).toEqual(lines.map((_, index) => `#${index}`));
    expect(result!.score).toBe(0);
    // The outcome has taken the journal's place.
    expect(await readdir(folder.path)).toEqual(['outcome.json']);
  });

  it('takes a damaged outcome for none', async () => {
    const [folder] = await readdir(join(root, 'elsewhere'));
    const outcome = join(root, 'elsewhere', folder!, 'outcome.json');
    const whole = await readFile(outcome, 'utf8');
    const { comparedWith: _, ...alone } = { ...MERGED, suites: ['sums'] };
    for (const damaged of ['', whole.slice(0, -5), '{}', '{"answers":["#0"]}']) {
      await writeFile(outcome, damaged);
      const evaluating = evaluate(alone, { directory: join(root, 'elsewhere'), tools: noTools() });
      await expect(evaluating).rejects.toMatchObject({ code: 'tool.not-found' });
    }
  });

  it('says that a suite changed since its reference was asked', async () => {
    const edited = suites.map((suite) => ({ ...suite, digest: 'e'.repeat(64) }));
    const key = { artefactDigest: models.merged.digest, runner: merged[1]!.runner };
    const folder = new SuiteFolder(directory, { ...key, suiteDigest: 'e'.repeat(64) });
    await folder.make();
    await folder.writeOutcome({ answers: merged[1]!.answers.map(({ text }) => text) });
    const evaluating = evaluateCandidate({
      ...{ step: { ...MERGED, suites: ['sums'] }, suites: edited, model: models.merged },
      ...{ references: { 'adapter:calculator': models['adapter:calculator'].digest } },
      ...{ tools: noTools(), directory, signal },
    });
    await expect(evaluating).rejects.toMatchObject({
      code: 'evaluate.reference-missing',
      message: expect.stringMatching(
        /merged is compared with adapter:calculator.*suite sums.*Resume/,
      ),
    });
  });

  it('takes it for a result that a model computes no numbers', async () => {
    const broken = join(root, 'broken');
    await cp(models.merged.directory!, broken, { recursive: true });
    await overwriteTensor(join(broken, 'model.safetensors'), 'model.norm.weight', NOT_A_NUMBER);
    const model = { directory: broken, digest: 'f'.repeat(64) };
    const found = await evaluate(MERGED, { model });
    expect(found.map(({ suite }) => suite)).toEqual(['prose', 'sums']);
    for (const result of found) {
      expect(result.notFinite).toMatch(/logits are not finite/);
      expect(result).not.toHaveProperty('comparison');
    }
    expect(found[1]).toMatchObject({ score: 0 });
    expect(await evaluate(MERGED, { model, tools: noTools() })).toEqual(found);
    const asReference = evaluate(REFERENCE, { model: { ...model, digest: '1'.repeat(64) } });
    await expect(asReference).rejects.toMatchObject({ code: 'evaluate.not-finite' });
  });

  it('says which tools are missing', async () => {
    const evaluating = evaluate(MERGED, { tools: { variables: {} } });
    await expect(evaluating).rejects.toThrow(/no Python with torch.*weldline tools install eval/);
    const gguf = evaluate({ ...MERGED, runner: 'llama.cpp' }, { tools: { variables: {} } });
    await expect(gguf).rejects.toThrow(/no llama\.cpp.*weldline tools install gguf/);
  });
});
