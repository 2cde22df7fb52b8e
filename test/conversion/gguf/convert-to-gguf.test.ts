import { execFileSync, spawn } from 'node:child_process';
import { copyFile, cp, mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { GGUF_TYPE_NAMES, ggufType } from '../../../config/gguf-types.ts';
import type { GgufStep } from '../../../conversion/conversion-step.ts';
import { readConversion } from '../../../conversion/conversion-store.ts';
import { convert } from '../../../conversion/convert.ts';
import type { Conversion, ConversionTools } from '../../../conversion/convert-options.ts';
import {
  compareMetadata,
  readCheckpointSettings,
} from '../../../conversion/gguf/check-metadata.ts';
import {
  compareWithCheckpoint,
  compareWithSource,
} from '../../../conversion/gguf/check-tensors.ts';
import { type GgufModel, readGguf } from '../../../conversion/gguf/gguf-model.ts';
import { splitGguf } from '../../../conversion/gguf/split-gguf.ts';
import { sha256Of } from '../../../engine/canonical-json.ts';
import { digestFile } from '../../../engine/durable-files.ts';
import { buildLlamaPrograms } from '../../../tools/build-llama-programs.ts';
import { tryGguf } from '../../../tools/gguf/try-gguf.ts';
import type { LlamaCpp } from '../../../tools/llama-cpp.ts';
import {
  ANSWER,
  CALIBRATION,
  type Golden,
  IMATRIX,
  MODEL_NAME,
  mergeExample,
  optionsFor,
  QUESTION,
  readGolden,
  testTools,
} from './tiny-model.ts';

const BUILD_TIMEOUT_MS = 300_000;
const F16: GgufStep = { kind: 'gguf', id: 'gguf-f16', type: 'F16', wanted: true };

function quantization(type: GgufStep['type'], more: Partial<GgufStep> = {}): GgufStep {
  const id = `gguf-${type.toLowerCase()}`;
  return { kind: 'gguf', id, type, after: F16.id, wanted: true, ...more };
}

// The import of torch takes a minute on a busy machine.
vi.setConfig({ testTimeout: 240_000 });

let golden: Golden;
let tools: ConversionTools;
let place: { readonly root: string; readonly merged: string };
let f16: Conversion;
let own: LlamaCpp;

beforeAll(async () => {
  [golden, tools, place] = await Promise.all([readGolden(), testTools(), mergeExample()]);
  // Compiled once in a checkout.
  own = await buildLlamaPrograms(tools.llamaCpp!, ['llama-quantize', 'llama-imatrix']);
}, BUILD_TIMEOUT_MS);
afterAll(async () => await rm(place.root, { recursive: true, force: true }));

const make = async (step: GgufStep, some: Partial<ConversionTools> = {}): Promise<Conversion> =>
  await convert(optionsFor(step, place, { ...tools, ...some }, { [F16.id]: f16?.directory ?? '' }));

const onlyDigest = ({ manifest }: Conversion): string => {
  expect(manifest.files).toHaveLength(1);
  return manifest.files[0]?.sha256 ?? '';
};

describe('a checkpoint as GGUF', () => {
  it('leaves nothing that looks done when it is killed', async () => {
    const script = join(place.root, 'convert.ts');
    const module = new URL('../../../conversion/convert.ts', import.meta.url).href;
    const options = JSON.stringify(optionsFor(F16, place, tools));
    await writeFile(
      script,
      `import { convert } from ${JSON.stringify(module)};
       const onProgress = ({ stage }: { stage: string }) => console.log(stage);
       await convert({ ...${options}, onProgress });`,
    );
    const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    const store = join(place.root, 'conversions');
    const left = execFileSync('ls', [store], { encoding: 'utf8' });
    expect(left).toMatch(/^gguf-f16-[0-9a-f]{16}\.[0-9a-f]{8}-\d+-0\.partial\n$/);
  });

  it('has the bytes that llama.cpp makes by hand, and is checked', async () => {
    f16 = await make(F16);
    expect(onlyDigest(f16)).toBe(golden.converted['F16']);
    expect(f16.manifest).toMatchObject({
      kind: 'gguf',
      settings: { type: 'F16', name: MODEL_NAME },
      files: [{ path: 'Tiny-Calculator-F16.gguf' }],
      warnings: [],
    });
    expect(f16.manifest.bitsPerWeight).toBeCloseTo(16.07, 2);
    expect(f16.manifest.checks).toEqual([
      expect.stringMatching(/^It is llama with 512 tokens, .*bos 1, eos 2.* its chat template\.$/),
      expect.stringMatching(/^23 of 30 tensors .*\(23 F16, 7 F32\)\.$/),
      'It has all 2033408 parameters of the checkpoint.',
      'None of its weights is infinite or NaN.',
      expect.stringMatching(/^llama\.cpp loads it and generates text \([1-8] tokens\)\.$/),
    ]);
    expect(execFileSync('ls', [join(place.root, 'conversions')], { encoding: 'utf8' })).toMatch(
      /^gguf-f16-[0-9a-f]{16}\n$/,
    );
  });

  it('is not made again', async () => {
    const python = { ...tools.python!, python: '/nowhere/python' };
    expect(await make(F16, { python })).toEqual(f16);
  });

  it('is refused for a checkpoint that was cut off, before llama.cpp is asked', async () => {
    const merged = join(place.root, 'cut-off');
    await cp(place.merged, merged, { recursive: true });
    await truncate(join(merged, 'model.safetensors'), 1_000_000);
    const options = optionsFor(F16, { ...place, merged }, tools);
    await expect(convert({ ...options, mergedDigest: sha256Of('cut off') })).rejects.toMatchObject({
      code: 'safetensors.truncated',
    });
  });

  it('needs its tools, and says how to get them', async () => {
    const { llamaCpp, python: _, ...rest } = tools;
    for (const some of [{ ...rest, llamaCpp: llamaCpp! }, rest]) {
      await expect(convert(optionsFor(F16, place, some))).rejects.toMatchObject({
        code: 'tool.not-found',
        message: expect.stringContaining('weldline tools install gguf'),
      });
    }
  });
});

describe('quantized GGUF', () => {
  it('needs an importance matrix for the types of which the table says so', () => {
    const needy = GGUF_TYPE_NAMES.filter((name) => ggufType(name).needsImatrix);
    expect(needy).toEqual(golden.needImatrix);
  });

  it.each(['Q8_0', 'Q4_K_M', 'Q3_K_M', 'MXFP4_MOE'] as const)(
    '%s has the bytes of llama-quantize',
    async (type) => {
      const made = await make(quantization(type));
      expect(onlyDigest(made)).toBe(golden.quantized[type]);
      expect(made.manifest.warnings).toHaveLength(ggufType(type).loss === 'severe' ? 1 : 0);
    },
  );

  it.each(['Q4_K_M', 'IQ4_XS', 'Q2_K_S'] as const)(
    '%s has them with an importance matrix, too',
    async (type) => {
      const made = await make(quantization(type, { imatrix: { file: IMATRIX } }));
      expect(onlyDigest(made)).toBe(golden.withImatrix[type]);
    },
  );

  it('has the answers that were trained', async () => {
    const made = await make(quantization('Q4_K_M'));
    const model = join(made.directory, made.manifest.files[0]?.path ?? '');
    const request = { model, text: QUESTION, count: 6 };
    const { llamaCpp, variables } = tools;
    const result = await tryGguf({ ...request, llamaCpp: llamaCpp!, variables });
    expect(result?.text.trim()).toBe(ANSWER);
  });

  it('makes an importance matrix of text, once', async () => {
    const imatrix = { calibration: CALIBRATION };
    const one = await make(quantization('Q2_K_S', { imatrix }));
    const other = await make(quantization('IQ4_NL', { imatrix }));
    expect(one.manifest.settings['imatrix']).toBe(other.manifest.settings['imatrix']);
    const model = await readGguf(one.directory);
    expect(model.metadata['quantize.imatrix.dataset']).toBe('calibration.txt');
    expect(Number(model.metadata['quantize.imatrix.entries_count'])).toBe(21);
    const stored = execFileSync('ls', [join(place.root, 'conversions')], { encoding: 'utf8' });
    expect(stored.match(/^imatrix-/gm)).toHaveLength(1);
  });

  it('says that text is too short for an importance matrix', async () => {
    const calibration = join(place.root, 'short.txt');
    await writeFile(calibration, 'Q: 1+1 = [2]\n'.repeat(20));
    const made = make(quantization('Q2_K_S', { imatrix: { calibration } }));
    await expect(made).rejects.toMatchObject({ code: 'convert.bad-calibration' });
  });

  it("is made by the programs of a llama.cpp of the user's own", async () => {
    const { libraries: _, modules: __, ...programs } = own;
    const llamaCpp = { ...programs, version: 'b1', origin: 'setting' as const };
    const made = await make(quantization('Q8_0', { imatrix: { file: IMATRIX } }), { llamaCpp });
    expect(onlyDigest(made)).toBe(golden.withImatrix['Q8_0']);
    expect(made.manifest.warnings).toEqual([expect.stringContaining('It was not tried')]);
    const none = { ...llamaCpp, programs: {} };
    await expect(make(quantization('Q6_K'), { llamaCpp: none })).rejects.toMatchObject({
      code: 'tool.not-found',
    });
  });

  it('is cut into parts that load as one', async () => {
    const made = await make(quantization('Q8_0', { splitBytes: 1_000_000 }));
    expect(made.manifest.files.map(({ path }) => path)).toEqual([
      'Tiny-Calculator-Q8_0-00001-of-00003.gguf',
      'Tiny-Calculator-Q8_0-00002-of-00003.gguf',
      'Tiny-Calculator-Q8_0-00003-of-00003.gguf',
    ]);
    expect(made.manifest.checks.at(-1)).toMatch(/^llama\.cpp loads it/);
    const whole = await make(quantization('Q8_0', { splitBytes: 3_000_000 }));
    expect(onlyDigest(whole)).toBe(golden.quantized['Q8_0']);
  });

  it('is refused where the file it is made of was changed', async () => {
    const source = join(place.root, 'changed');
    await cp(f16.directory, source, { recursive: true });
    const file = join(source, 'Tiny-Calculator-F16.gguf');
    const bytes = await readFile(file);
    bytes[bytes.length - 100]! ^= 1;
    await writeFile(file, bytes);
    expect(await readConversion(source)).toBeUndefined();
    const step = quantization('Q5_K_M');
    await expect(
      convert(optionsFor(step, place, tools, { [F16.id]: source })),
    ).rejects.toMatchObject({ code: 'convert.source-damaged' });
  });

  it('stops at a full disk with nothing kept, and goes on when there is room', async () => {
    const volume = join(place.root, 'volume');
    await mkdir(volume);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'weldline-test', volume]);
    const options = {
      ...optionsFor(quantization('Q8_0'), place, tools, { [F16.id]: f16.directory }),
    };
    try {
      const directory = join(volume, 'conversions');
      await expect(convert({ ...options, directory })).rejects.toMatchObject({ code: 'disk.full' });
      expect(execFileSync('ls', [directory], { encoding: 'utf8' })).toBe('');
      execFileSync('mount', ['-o', 'remount,size=16m', volume]);
      expect(onlyDigest(await convert({ ...options, directory }))).toBe(golden.quantized['Q8_0']);
    } finally {
      execFileSync('umount', [volume]);
    }
  });
});

describe('splitGguf', () => {
  it('makes the parts of llama-gguf-split', async () => {
    const file = join(place.root, 'part.gguf');
    await copyFile(join(f16.directory, 'Tiny-Calculator-F16.gguf'), file);
    const parts = await splitGguf(file, 1_000_000);
    const digests = await Promise.all(parts.map((part) => digestFile(part)));
    expect(digests.map(({ sha256 }) => sha256)).toEqual(golden.split);
    await expect(digestFile(file)).rejects.toMatchObject({ code: 'source.not-found' });
  });
});

describe('what is checked of a file', () => {
  const failed = (message: string | RegExp) =>
    expect.objectContaining({
      code: 'convert.check-failed',
      message: expect.stringMatching(message),
    });

  async function changed(metadata: Readonly<Record<string, unknown>>): Promise<GgufModel> {
    const model = await readGguf(f16.directory);
    return { ...model, metadata: { ...model.metadata, ...metadata } };
  }

  it.each([
    ['its type', { 'general.file_type': 7 }, /type is 7, not 1 \(F16\)/],
    ['its architecture', { 'general.architecture': undefined }, /what architecture/],
    ['its chat template', { 'tokenizer.chat_template': '{{ x }}' }, /another chat template/],
    ['that it has one', { 'tokenizer.chat_template': undefined }, /another chat template/],
    ['its end token', { 'tokenizer.ggml.eos_token_id': 7 }, /eos token 7 .*checkpoint <\/s>/],
    ['its tokens', { 'tokenizer.ggml.tokens': ['a'] }, /512 rows of embeddings for 1 tokens/],
  ])('finds a file that is wrong about %s', async (_what, metadata, message) => {
    const settings = await readCheckpointSettings(place.merged);
    const model = await changed(metadata);
    expect(() => compareMetadata(model, settings, ggufType('F16'))).toThrow(failed(message));
  });

  it('finds tensors that are missing, have another shape or are too many', async () => {
    const model = await readGguf(f16.directory);
    const name = 'blk.1.ffn_up.weight';
    const tensor = model.tensors.get(name)!;
    const less = { ...model, tensors: new Map(model.tensors) };
    less.tensors.delete(name);
    const other = { ...model, tensors: new Map(model.tensors) };
    other.tensors.set(name, { ...tensor, shape: [256, 512] });
    const shapes = new Map([['model.layers.1.mlp.up_proj.weight', [512, 256]]]);
    expect(() => compareWithCheckpoint(less, shapes, false)).toThrow(failed(`lacks ${name}`));
    expect(() => compareWithCheckpoint(other, shapes, false)).toThrow(failed(/\[256, 512\], not/));
    expect(() => compareWithSource(less, model)).toThrow(failed(`lacks ${name}`));
    expect(() => compareWithSource(other, model)).toThrow(failed(/\[256, 512\], not/));
    expect(() => compareWithSource(model, less)).toThrow(failed(`has ${name}, which`));
  });

  it('takes a head that is the embedding, and counts the parameters', async () => {
    const model = await readGguf(f16.directory);
    const tied = new Map(model.tensors);
    tied.delete('output.weight');
    const shapes = new Map([
      ['model.embed_tokens.weight', [512, 256]],
      ['lm_head.weight', [512, 256]],
    ]);
    expect(() => compareWithCheckpoint({ ...model, tensors: tied }, shapes, false)).toThrow(
      failed('lacks output.weight'),
    );
    const { warnings } = compareWithCheckpoint({ ...model, tensors: tied }, shapes, true);
    expect(warnings).toEqual([expect.stringContaining('and the checkpoint 131072')]);
  });
});
