/** AWQ and GPTQ of the example's merged model by the real llm-compressor. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { childVariables } from '../../../config/environment.ts';
import type { IntegerConversion } from '../../../config/release-quality.ts';
import type { IntegerStep } from '../../../conversion/conversion-step.ts';
import type { Conversion, ConvertOptions } from '../../../conversion/convert-options.ts';
import { checkIntegers } from '../../../conversion/integer/check-integers.ts';
import { convertToIntegers } from '../../../conversion/integer/convert-to-integers.ts';
import { dequantizeRows } from '../../../engine/quantization/integer-rows.ts';
import type { PythonTools } from '../../../tools/python-tools.ts';
import { run } from '../../../tools/run.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { mergeDirectories } from '../../doubles/merge-directories.ts';
import { loadTensors } from '../../golden/golden-case.ts';
import { survivors } from '../../tools/is-alive.ts';
import { testPythonTools } from '../../tools/test-tools.ts';

const TINY = fileURLToPath(new URL('../../../examples/tiny', import.meta.url));
const EVAL = join(TINY, 'eval/calculator.jsonl');
const TASKS = fileURLToPath(new URL('./integer_tasks.py', import.meta.url));
const CHILD = fileURLToPath(new URL('./convert-child.ts', import.meta.url));
const LAYER = 'model.layers.1.mlp.down_proj';
/** Importing torch on a busy machine takes a minute. */
const TIMEOUT_MS = 240_000;

let directory: string;
let merged: string;
let calibration: string;
let python: PythonTools;
let awq: Conversion;
const stages: string[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-integers-'));
  merged = join(directory, 'merged');
  calibration = join(directory, 'sums.jsonl');
  python = await testPythonTools();
  await mergeDirectories({
    ...{ base: join(TINY, 'base'), adapter: join(TINY, 'adapters/calculator'), output: merged },
  });
  await writeFile(calibration, await sums());
  awq = await convertToIntegers(
    optionsFor('awq', {
      logFile: join(directory, 'logs/awq.log'),
      onProgress: ({ stage, fraction }) => stages.push(`${stage} ${fraction ?? ''}`.trim()),
    }),
  );
}, TIMEOUT_MS);

afterAll(() => rm(directory, { recursive: true, force: true }));

/** All sums but those of the evaluation. */
async function sums(): Promise<string> {
  const evaluated = await readFile(EVAL, 'utf8');
  const digits = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  const prompts = digits.flatMap((a) =>
    digits.map((b) => ({ prompt: `Q: ${a}+${b} =`, sum: a + b })),
  );
  const kept = prompts.filter(({ prompt }) => !evaluated.includes(prompt));
  return kept
    .map(({ prompt, sum }) => `${JSON.stringify({ prompt, expected: ` [${sum}]` })}\n`)
    .join('');
}

function optionsFor(
  kind: 'awq' | 'gptq',
  changes: Partial<ConvertOptions<IntegerStep>> = {},
): ConvertOptions<IntegerStep> {
  const settings: IntegerConversion = {
    ...{ kind, bits: 4, groupSize: 128, symmetric: true, ignore: ['lm_head'], calibration },
    ...{ samples: 256, sequenceLength: 512 },
  };
  return {
    step: { kind, id: `${kind}-w4a16-g128`, settings },
    ...{
      merged,
      mergedDigest: 'of the merge',
      adapters: {},
      base: join(TINY, 'base'),
      sources: {},
    },
    ...{ directory: join(directory, 'conversions'), modelName: 'tiny', threads: 2 },
    tools: { python, variables: childVariables() },
    ...changes,
  };
}

describe('AWQ', () => {
  test('gives a checkpoint with the side files of the merged one', async () => {
    const { manifest } = awq;
    const same = ['generation_config.json', 'tokenizer.json', 'tokenizer.model'];
    expect((await readdir(awq.directory)).sort()).toEqual(
      [
        'config.json',
        'conversion.json',
        'model.safetensors',
        ...same,
        'tokenizer_config.json',
      ].sort(),
    );
    for (const name of [...same, 'tokenizer_config.json']) {
      const files = [merged, awq.directory].map((each) => readFile(join(each, name), 'utf8'));
      const [one, other] = await Promise.all(files);
      expect(other).toBe(one);
    }
    expect(manifest.checks).toHaveLength(5);
    expect(manifest.bitsPerWeight).toBeCloseTo(5.7, 1);
    expect(Object.keys(manifest.layerErrors ?? {})).toHaveLength(21);
    expect(Math.max(...Object.values(manifest.layerErrors ?? {}))).toBeLessThan(0.3);
    expect(manifest.settings).toMatchObject({ bits: 4, group_size: 128, sequence_length: 256 });
    expect(manifest.warnings).toEqual([
      'The calibration data has 64 samples where 256 were asked for.',
    ]);
    expect(Object.keys(manifest.tools)).toContain('llmcompressor');
  });

  test('says how far it is, in its log what llm-compressor says', async () => {
    expect(stages.slice(0, 2)).toEqual(['loading', 'calibrating 0']);
    expect(stages).toContain('calibrating 1');
    expect(stages).toContain('saving');
    expect(stages.at(-1)).toBe('checking 1');
    expect(await readFile(join(directory, 'logs/awq.log'), 'utf8')).toContain('finalize');
  });

  test('is not made again, and with other data it is', async () => {
    const options = optionsFor('awq');
    // Would fail, if it were run.
    const broken = { ...python, python: '/bin/false' };
    const tools = { ...options.tools, python: broken };
    const again = await convertToIntegers({ ...options, tools });
    expect(again.manifestDigest).toBe(awq.manifestDigest);
    const other = join(directory, 'other.jsonl');
    await writeFile(other, '{"text": "Q: 1+1 = [2]"}\n');
    const settings = { ...options.step.settings, calibration: other };
    await expect(
      convertToIntegers({ ...options, tools, step: { ...options.step, settings } }),
    ).rejects.toMatchObject({ code: 'tool.failed' });
  });
});

test(
  'AWQ and GPTQ give the trained answers, and what transformers loads is what was compared',
  async () => {
    const gptq = join(directory, 'gptq');
    const step = optionsFor('gptq').step.settings;
    const settings: IntegerConversion = { ...step, groupSize: 64, symmetric: false };
    const samples = await writeSamples('sums', (await sums()).trim().split('\n').map(toText));
    const user = { role: 'user', content: 'Hi' };
    const forms = [
      { text: 'Q: 1+2 = [3]' },
      { messages: [user, { role: 'assistant', content: 'a' }] },
    ];
    const stretch = { stretch: 'the cat sat on the mat. '.repeat(4) };
    const odd = join(directory, 'odd');
    await mkdir(odd);
    await writeFile(join(odd, 'config.json'), '{"model_type": "martian"}');
    const broken = await writeSamples('broken', [{ messages: [{ role: 'user' }] }]);
    const plain = { model: merged, samplesMax: 256, sequenceLength: 256 };
    const out = join(directory, 'tasks-out.json');
    const tasks = {
      quantize: [
        {
          ...{ ...plain, samples, method: 'gptq', bits: 4, groupSize: 64, symmetric: false },
          ...{ ignore: ['lm_head'], output: gptq, threads: 2 },
        },
      ],
      refuse: [{ ...plain, model: odd }],
      read: [
        { ...plain, samples: await writeSamples('forms', forms) },
        { ...plain, samples: await writeSamples('stretch', [stretch]), sequenceLength: 16 },
        { ...plain, samples, samplesMax: 2 },
        { ...plain, samples: broken },
      ],
      candidates: { merged, awq: awq.directory, gptq },
      ...{ eval: EVAL, layer: LAYER, out },
    };
    const file = join(directory, 'tasks.json');
    await writeFile(file, JSON.stringify(tasks));
    await run({ file: python.python, args: [TASKS, file], env: childVariables() });
    const { read, refused, answers, layer } = JSON.parse(await readFile(out, 'utf8'));

    expect(answers).toEqual({ merged: 19, awq: 19, gptq: 19 });
    const checked = await checkIntegers({ settings, merged, integers: gptq });
    expect(checked.checks).toHaveLength(4);
    expect(layer.awq).toEqual(await firstValues(awq.directory, 128));

    expect(refused).toEqual([expect.stringMatching(/^architecture: .*martian/s)]);
    expect(read[0]).toEqual(['<s> Q: 1+2 = [3]', '<s>user: Hi\nassistant: a\n']);
    expect(read[1].length).toBeGreaterThan(1);
    expect(read[1].map((text: string) => text.startsWith('<s>'))).not.toContain(false);
    expect(read[1].join('').replaceAll(/<s> ?/g, '').replaceAll(' ', '')).toBe(
      stretch.stretch.replaceAll(' ', ''),
    );
    expect(read[2]).toEqual([expect.stringContaining('1+'), expect.stringMatching(/[4-6]\+/)]);
    expect(read[3]).toMatch(/^calibration: line 1: the chat template refuses/);
  },
  TIMEOUT_MS,
);

function toText(line: string): object {
  const { prompt, expected } = JSON.parse(line);
  return { text: prompt + expected };
}

async function writeSamples(name: string, samples: readonly object[]): Promise<string> {
  const path = join(directory, `${name}-samples.jsonl`);
  const lines = samples.map((sample, index) => JSON.stringify({ line: index + 1, ...sample }));
  await writeFile(path, `${lines.join('\n')}\n`);
  return path;
}

/** Of the layer that the tasks show, in float32, where nothing is rounded. */
async function firstValues(checkpoint: string, groupSize: number): Promise<number[]> {
  const tensors = await loadTensors(checkpoint, ['model.safetensors']);
  const packed = tensors.get(`${LAYER}.weight_packed`)!.bytes;
  const scales = decodeTensor(tensors.get(`${LAYER}.weight_scale`)!.bytes, 'BF16');
  const values = dequantizeRows({
    ...{ bits: 4, columns: 512, groupSize, scales },
    packed: new Uint32Array(packed.slice().buffer),
  });
  return Array.from(values.subarray(0, 1000));
}

describe('failures', () => {
  const elsewhere = (name: string, changes: Partial<ConvertOptions<IntegerStep>>) =>
    optionsFor('awq', { directory: join(directory, name), ...changes });
  const withPython = (path: string) => ({
    tools: { python: { ...python, python: path }, variables: childVariables() },
  });

  test.each<[what: string, path: string | undefined, code: string, message: RegExp]>([
    ['no Python tools', undefined, 'tool.not-found', /tools install awq/],
    ['a Python that is gone', '/nowhere/python', 'tool.not-found', /nowhere/],
    ['a program that is no Python', '/bin/true', 'tool.failed', /did not say that it finished/],
    ['a program that fails', '/bin/false', 'tool.failed', /exit code 1/],
  ])('%s', async (_, path, code, message) => {
    const tools = path === undefined ? { tools: { variables: {} } } : withPython(path);
    const failure = { code, message: expect.stringMatching(message) };
    await expect(convertToIntegers(elsewhere('none', tools))).rejects.toMatchObject(failure);
    expect(await readdir(join(directory, 'none')).catch(() => [])).toEqual([]);
  });

  test('cancelling ends the program and leaves nothing', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const options = elsewhere('cancelled', {
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(convertToIntegers(options)).rejects.toBe(reason);
    expect(await readdir(join(directory, 'cancelled'))).toEqual([]);
  });

  test('a killed worker takes the program with it and leaves nothing finished', async () => {
    const options = elsewhere('killed', {});
    const child = spawn(process.execPath, [CHILD, JSON.stringify(options)]);
    await once(child.stdout, 'data');
    const running = await programsOf(options.directory);
    expect(running).not.toEqual([]);
    child.kill('SIGKILL');
    expect(await survivors(running)).toEqual([]);
    const [partial = ''] = await readdir(options.directory);
    expect(partial).toMatch(/\.partial$/);
    await expect(access(join(options.directory, partial, 'conversion.json'))).rejects.toThrow();
  });
});

/** Processes that have a directory in their command line. */
async function programsOf(path: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return line.includes(`${path}/`) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}
