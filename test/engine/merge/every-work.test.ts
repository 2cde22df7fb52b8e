/** Each way in which a tensor comes about: its plan is read back whole, a merge of it can be stopped
 * anywhere and goes on to the same bytes, and verification sees one wrong value. */
import { createHash } from 'node:crypto';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { MANIFEST_FILE } from '../../../engine/manifest.ts';
import {
  formatPlan,
  type MergeOptions,
  type Plan,
  type PlannedTensor,
  parsePlan,
  planDigest,
} from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { makeMlx } from '../../doubles/foreign-adapters.ts';
import { fusedAttention } from '../../doubles/fused-attention.ts';
import { kindAdapter } from '../../doubles/kind-adapter.ts';
import {
  type Directories,
  mergeDirectories,
  planDirectories,
  readFiles,
} from '../../doubles/merge-directories.ts';
import { type PackedKind, packBase } from '../../doubles/packed-base.ts';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { writeModels } from '../../doubles/several-models.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { randomTensor, type TinyModel, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

const PAGE_BYTES = 4096;
const SHARD = 'model.safetensors';
const TARGETS = ['self_attn.q_proj', 'mlp.down_proj'] as const;
const EMBEDDING = 'base_model.model.model.embed_tokens';

type Models = readonly [TinyModel, ...TinyModel[]];

const two = (): TinyModel[] => [tinyAdapter({ seed: 3 }), tinyAdapter({ seed: 4, rank: 5 })];

function packed(kind: PackedKind): TinyModel {
  const base = tinyBase();
  packBase(base, new Random(5), kind);
  return base;
}

/** Rows of the embedding that were trained, beside another adapter's modules. */
function withTokens(adapter: TinyModel): TinyModel {
  adapter.config['trainable_token_indices'] = { embed_tokens: [3, 98] };
  const name = `${EMBEDDING}.token_adapter.trainable_tokens_delta`;
  adapter.tensors.push(randomTensor(new Random(6), name, 'F32', [2, 64]));
  return adapter;
}

/** DoRA on an embedding: norms of columns. */
function columnDora(): TinyModel {
  const adapter = doraAdapter({ targets: TARGETS });
  adapter.config['target_modules'] = ['q_proj', 'down_proj', 'embed_tokens'];
  const random = new Random(8);
  adapter.tensors.push(
    randomTensor(random, `${EMBEDDING}.lora_embedding_A`, 'F32', [4, 100]),
    randomTensor(random, `${EMBEDDING}.lora_embedding_B`, 'F32', [64, 4]),
    randomTensor(random, `${EMBEDDING}.lora_magnitude_vector`, 'F32', [64]),
  );
  return adapter;
}

function replicated(adapter: TinyModel): TinyModel {
  adapter.config['layer_replication'] = [
    [0, 2],
    [0, 2],
  ];
  const copies = adapter.tensors.map((tensor) => ({
    ...tensor,
    name: tensor.name.replace(/layers\.(\d)/, (_, layer) => `layers.${Number(layer) + 2}`),
  }));
  adapter.tensors.push(...copies);
  return adapter;
}

function replicable(): TinyModel {
  const base = tinyBase();
  base.config['num_hidden_layers'] = 2;
  quantizeBase(base, new Random(7), 'nf4-double');
  return base;
}

/** Experts [2, 96, 64], which PEFT knows to be [in, out]. */
function ofExperts(): TinyModel {
  const stem = 'base_model.model.model.layers.1.mlp.experts';
  const random = new Random(9);
  const tensors = [
    randomTensor(random, `${stem}.lora_A.weight`, 'F32', [6, 96]),
    randomTensor(random, `${stem}.lora_B.weight`, 'F32', [64, 6]),
  ];
  const config = { r: 3, lora_alpha: 6, target_parameters: ['mlp.experts.down_proj'] };
  return { config: { peft_type: 'LORA', ...config }, tensors, files: {}, shards: 1 };
}

function gptOss(): TinyModel {
  const base = packed('mxfp4');
  base.config['model_type'] = 'gpt_oss';
  return base;
}

function ofMlx(): TinyModel {
  const adapter = tinyAdapter({ targets: TARGETS, seed: 7 });
  const lora_parameters = { rank: 4, scale: 2, dropout: 0 };
  makeMlx(adapter, { fine_tune_type: 'lora', num_layers: 2, lora_parameters });
  return adapter;
}

const DEQUANTIZED: MergeOptions = { mergeOnto: 'dequantized' };
const inTurn: MergeOptions = { combination: { method: 'sequential' } };
const by = (
  method: NonNullable<MergeOptions['combination']>['method'],
  parameters: NonNullable<MergeOptions['combination']>['parameters'],
): MergeOptions => ({ combination: { method, ...(parameters && { parameters }) } });

const CASES: readonly (readonly [string, () => Models, MergeOptions])[] = [
  [
    'sums of MLX and PEFT',
    () => [tinyBase(), tinyAdapter({ targets: TARGETS }), ofMlx()],
    by('linear', undefined),
  ],
  ['DoRA on rows of a fused weight', () => [fusedAttention(), doraAdapter()], {}],
  ['norms of columns', () => [tinyBase({ tied: true }), columnDora()], {}],
  [
    'kinds in turn',
    () => [
      tinyBase(),
      kindAdapter('LOHA'),
      kindAdapter('IA3'),
      doraAdapter({ targets: TARGETS }),
      kindAdapter('OFT'),
    ],
    inTurn,
  ],
  [
    'VeRA and trained rows',
    () => [tinyBase(), kindAdapter('VERA'), withTokens(tinyAdapter())],
    inTurn,
  ],
  ['largest elements', () => [tinyBase(), ...two()], by('ties', { density: 0.4 })],
  ['elements at random', () => [tinyBase(), ...two()], by('dare_ties', { density: 0.5, seed: 9 })],
  ['singular vectors', () => [tinyBase(), ...two()], by('svd', { rank: 3 })],
  [
    "PEFT's factors",
    () => [tinyBase(), tinyAdapter({ seed: 3 }), tinyAdapter({ seed: 4 })],
    by('peft_ties', { density: 0.4 }),
  ],
  ['replicated layers of NF4', () => [replicable(), replicated(tinyAdapter())], DEQUANTIZED],
  ['AdaLoRA on GPTQ', () => [packed('gptq'), kindAdapter('ADALORA')], DEQUANTIZED],
  ['LoKr on AWQ', () => [packed('awq'), kindAdapter('LOKR')], DEQUANTIZED],
  ['OFT on FP8', () => [packed('fp8'), kindAdapter('OFT')], DEQUANTIZED],
  ['experts of MXFP4', () => [gptOss(), ofExperts()], DEQUANTIZED],
  ['simulated NF4', () => [tinyBase(), doraAdapter()], { mergeOnto: 'simulated_nf4' }],
];

/** Those that read a base in ways of their own: whole tensors first, beside codes, beside other files. */
const STREAMED = ['norms of columns', 'largest elements', 'singular vectors', 'OFT on FP8'];

test.each(CASES)('%s', async (name, models, options) => {
  const [base, ...adapters] = models();
  const inputs = await writeModels(base, adapters);
  const plan = await planDirectories(inputs, options);
  expect(parsePlan(formatPlan(plan), planDigest(plan), 'plan.json')).toEqual(plan);
  const whole = join(await temporaryDirectory(), 'whole');
  await mergeDirectories({ ...inputs, plan, output: whole });
  const stopped = join(await temporaryDirectory(), 'stopped');
  for (const share of [0.3, 0.7]) await stopAfter(share, inputs, plan, stopped);
  await mergeDirectories({ ...inputs, plan, output: stopped, windowBytes: PAGE_BYTES });
  expect(await readFiles(stopped)).toEqual(await readFiles(whole));
  if (STREAMED.includes(name)) await mergeStreamed(inputs, plan, whole);
  await spoilEach(inputs, plan, whole);
});

/** The same while the base's weights are elsewhere: nothing of them is on the disk. */
async function mergeStreamed(inputs: Directories, plan: Plan, whole: string): Promise<void> {
  const root = await temporaryDirectory();
  const [base, output] = [join(root, 'base'), join(root, 'output')];
  await cp(inputs.base, base, { recursive: true });
  await rm(join(base, SHARD));
  const streamed = { base: { files: await openModelDirectory(inputs.base), pin: 'state' } };
  const manner = { threads: 3, windowBytes: PAGE_BYTES };
  await mergeDirectories({ ...inputs, base, plan, output, streamed, ...manner });
  expect(await readFiles(output)).toEqual(await readFiles(whole));
  const roots = { base, a: inputs.adapter, ...inputs.others };
  const recompute = { plan, roots, streamed };
  await verifyMerge({ directory: output, files: await openModelDirectory(output), recompute });
}

async function stopAfter(
  share: number,
  inputs: Directories,
  plan: Plan,
  output: string,
): Promise<void> {
  const controller = new AbortController();
  const merging = mergeDirectories({
    ...{ ...inputs, plan, output, windowBytes: PAGE_BYTES, threads: 2 },
    signal: controller.signal,
    onProgress: ({ bytesDone, bytesTotal }) => {
      if (bytesDone > share * bytesTotal) controller.abort(new Error('stopped'));
    },
  });
  await expect(merging).rejects.toThrow('stopped');
}

/** Changes one value of one tensor of each kind, with a manifest that agrees. */
async function spoilEach(inputs: Directories, plan: Plan, output: string): Promise<void> {
  const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
  const verify = async (): Promise<unknown> =>
    verifyMerge({
      directory: output,
      files: await openModelDirectory(output),
      recompute: { plan, roots },
    });
  await verify();
  const [path, manifestPath] = [join(output, SHARD), join(output, MANIFEST_FILE)];
  const sound = await readFile(path);
  const manifest = await readFile(manifestPath, 'utf8');
  const ofKind = new Map(plan.shards[0]?.tensors.map((tensor) => [kindOf(tensor), tensor]));
  expect(ofKind.size).toBeGreaterThan(1);
  for (const tensor of ofKind.values()) {
    const spoilt = Buffer.from(sound);
    const valueBytes = tensor.dtype === 'F32' ? 4 : 2;
    const row = (tensor.tokens?.[0]?.indices[0] ?? 0) * (tensor.shape.at(-1) ?? 1);
    spoilt[tensor.offset + (row + 1) * valueBytes - 1]! ^= 2;
    await writeFile(path, spoilt);
    await writeFile(manifestPath, manifest.replaceAll(digestOf(sound), digestOf(spoilt)));
    await expect(verify(), tensor.name).rejects.toMatchObject({
      code: 'verify.recomputation-mismatch',
      message: expect.stringContaining(`"${tensor.name}"`),
    });
  }
}

const digestOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** What a plan says of a tensor beside its place: other keys, another way. */
function kindOf({ from, deltas = [], changes = [], ...others }: PlannedTensor): string {
  const keys = [...deltas, ...changes].flatMap((step) => Object.keys(step));
  return [from.quantization?.scheme, ...Object.keys(others), ...keys].join();
}
