import { type FileHandle, open, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { compileKernel } from '../../kernels/index.ts';
import type { ByteSource } from '../byte-source.ts';
import { toReadError } from '../disk-errors.ts';
import { WeldlineError } from '../errors.ts';
import { MANIFEST_FILE, type Manifest, parseManifest } from '../manifest.ts';
import { bandArenas } from '../merge/arena-sizes.ts';
import { type Cuts, findCuts } from '../merge/bands/find-cuts.ts';
import { type StreamedInputs, streamedInput } from '../merge/streamed-input.ts';
import { isCopied } from '../merge/tensor-work.ts';
import type { ModelFiles } from '../model-files.ts';
import type { Plan, PlannedShard, PlannedTensor } from '../plan/plan.ts';
import { readCheckpoint } from '../safetensors/checkpoint.ts';
import { CapturedRows } from './captured-rows.ts';
import { verifyCopiedRows } from './copied-rows.ts';
import type { ReadTensor } from './factor-rows.ts';
import { NonFiniteScan } from './find-non-finite.ts';
import { type FileWatcher, verifyFiles } from './verify-files.ts';
import { verifyRows } from './verify-rows.ts';

/**
 * Rows worked out again per tensor: the first, the last, one chosen by its name, two of those that
 * each adapter trained, and one of each block of rows (an expert, a projection), or of some of them where there are many.
 */
const BLOCKS_PER_TENSOR = 8;

/** A thread takes some 15 MB. */
const CUT_THREADS_MAX = 4;

export interface Verification {
  readonly filesChecked: number;
  readonly bytesChecked: number;
  readonly tensorsChecked: number;
  /** Rows worked out again in float64; 0 where plan and inputs are not at hand. */
  readonly rowsRecomputed: number;
  /** Largest distance from the exact value, in units of the dtype's rounding; 1 is one rounding. */
  readonly worstRounding: number;
}

interface Recomputation {
  readonly plan: Plan;
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** Inputs whose weights are read where they are. */
  readonly streamed?: StreamedInputs | undefined;
}

export interface VerifyOptions {
  /** Holds the manifest. */
  readonly directory: string;
  /** All files of the checkpoint; its weights may be elsewhere. */
  readonly files: ModelFiles;
  /** The plan and where its inputs are, to recompute rows. */
  readonly recompute?: Recomputation;
  readonly onBytes?: ((count: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Checks a merged checkpoint: every file against the manifest's digests, the inventory of tensors,
 * that merged values are finite, and sampled rows by recomputation; of copies, by their source.
 *
 * @throws WeldlineError `verify.*`, `manifest.invalid`, `safetensors.*`, `checkpoint.*`
 */
export async function verifyMerge(options: VerifyOptions): Promise<Verification> {
  const { directory, files, recompute, signal, onBytes } = options;
  const manifest = await readManifest(directory);
  const sampled = recompute && new SampledRows(recompute, signal);
  let bytesChecked: number;
  try {
    const watch = (path: string): FileWatcher | undefined => sampled?.watch(path);
    bytesChecked = await verifyFiles(manifest, { files, watch, signal, onBytes });
  } finally {
    await sampled?.close();
  }
  const checkpoint = await readCheckpoint(files);
  if (checkpoint.tensors.size !== manifest.tensors.total) {
    throw new WeldlineError(
      'verify.inventory-mismatch',
      `${files.name} holds ${checkpoint.tensors.size} tensors, its manifest says ` +
        `${manifest.tensors.total}.`,
    );
  }
  const { rows, worst } = sampled ?? { rows: 0, worst: 0 };
  return {
    filesChecked: manifest.files.length,
    bytesChecked,
    tensorsChecked: checkpoint.tensors.size,
    rowsRecomputed: rows,
    worstRounding: Math.round(worst * 1000) / 1000,
  };
}

/** @throws WeldlineError `manifest.invalid` if there is none or it cannot be read */
export async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, MANIFEST_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new WeldlineError(
      'manifest.invalid',
      `${directory} has no ${MANIFEST_FILE}: it is not a finished merge of weldline.`,
      { cause: error },
    );
  }
  return parseManifest(text, path);
}

/**
 * Works sampled rows of every merged tensor out again, and compares copies with their source.
 * @returns how many rows, and their largest distance from the exact value in units of the dtype's
 *   rounding
 * @throws WeldlineError `verify.recomputation-mismatch`; what reading throws
 */
export async function verifyTensors(
  recompute: Recomputation,
  { files, signal }: Pick<VerifyOptions, 'files' | 'signal'>,
): Promise<{ rows: number; worst: number }> {
  const sampled = new SampledRows(recompute, signal);
  try {
    for (const shard of recompute.plan.shards) {
      const output = await files.open(shard.file);
      try {
        await sampled.verify(shard, output);
      } finally {
        await output.close();
      }
    }
    return { rows: sampled.rows, worst: sampled.worst };
  } finally {
    await sampled.close();
  }
}

/** Works sampled rows out again, shard after shard, while their files are read for their digests. */
class SampledRows {
  readonly #recompute: Recomputation;
  readonly #signal: AbortSignal | undefined;
  readonly #inputs: InputFiles;
  #cuts: Promise<Cuts> | undefined;
  rows = 0;
  worst = 0;

  constructor(recompute: Recomputation, signal: AbortSignal | undefined) {
    this.#recompute = recompute;
    this.#signal = signal;
    this.#inputs = new InputFiles(recompute.roots, recompute.streamed ?? {});
  }

  watch(path: string): FileWatcher | undefined {
    const shard = this.#recompute.plan.shards.find(({ file }) => file === path);
    if (shard === undefined) return undefined;
    const values = new NonFiniteScan(shard);
    const written = new CapturedRows(shard, chooseRows);
    return {
      visit(piece, offset) {
        values.visit(piece, offset);
        written.visit(piece, offset);
      },
      finish: async () => {
        values.finish();
        await this.verify(shard, written);
      },
    };
  }

  close(): Promise<void> {
    return this.#inputs.close();
  }

  async verify({ tensors }: PlannedShard, written: Pick<ByteSource, 'read'>): Promise<void> {
    const { plan, roots } = this.#recompute;
    this.#cuts ??= provenCuts(plan, roots, this.#signal);
    const cuts = await this.#cuts;
    const { read } = this.#inputs;
    for (const tensor of tensors) {
      this.#signal?.throwIfAborted();
      if (tensor.byteLength === 0) continue;
      const chosen = chooseRows(tensor);
      if (isCopied(tensor)) {
        await verifyCopiedRows(tensor, chosen, read, written);
        continue;
      }
      const far = await verifyRows(tensor, chosen, read, written, cuts.get(tensor.name));
      this.worst = Math.max(this.worst, far);
      this.rows += chosen.length;
    }
  }
}

/** Where deltas are thinned out to their largest elements: found again, and each proven. */
async function provenCuts(
  plan: Plan,
  roots: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<Cuts> {
  const tensors = plan.shards.flatMap((shard) => shard.tensors.filter(isCombined));
  if (tensors.length === 0) return new Map();
  return findCuts({
    tensors,
    module: await compileKernel(),
    arena: bandArenas(tensors)?.dense,
    threads: Math.min(availableParallelism(), CUT_THREADS_MAX),
    roots,
    isChecked: true,
    signal,
  });
}

function isCombined({ combination }: PlannedTensor): boolean {
  return combination !== undefined;
}

/** Deterministic: the same rows on every run, others for every tensor. */
function chooseRows(tensor: PlannedTensor): number[] {
  const columns = tensor.shape.at(-1) ?? 1;
  const rows = tensor.shape.reduce((product, extent) => product * extent, 1) / columns;
  let hash = 0;
  for (const character of tensor.name) {
    hash = (Math.imul(hash, 31) + (character.codePointAt(0) ?? 0)) >>> 0;
  }
  const trained = (tensor.tokens ?? []).flatMap(({ indices }) => [indices[0]!, indices.at(-1)!]);
  const chosen = [0, hash % rows, rows - 1, ...trained];
  const blocks = (tensor.deltas ?? []).flatMap(({ rows: block }) => block ?? []);
  const every = Math.max(1, blocks.length / BLOCKS_PER_TENSOR);
  for (let index = 0; index < blocks.length; index += every) {
    const { begin, count } = blocks[Math.floor(index)]!;
    chosen.push(begin + (hash % count));
  }
  return [...new Set(chosen)];
}

/** The inputs' files, each opened once. */
class InputFiles {
  readonly #roots: Readonly<Record<string, string>>;
  readonly #streamed: StreamedInputs;
  readonly #open = new Map<string, FileHandle>();
  readonly #sources = new Map<string, ByteSource>();

  constructor(roots: Readonly<Record<string, string>>, streamed: StreamedInputs) {
    this.#roots = roots;
    this.#streamed = streamed;
  }

  readonly read: ReadTensor = async (tensor, offset, length) => {
    const { input, file } = tensor;
    const path = join(this.#roots[input] ?? '', file);
    const remote = streamedInput(this.#streamed, input, file);
    if (remote !== undefined) {
      const source = this.#sources.get(path) ?? (await remote.files.open(file));
      this.#sources.set(path, source);
      return source.read(tensor.offset + offset, length);
    }
    try {
      const handle = this.#open.get(path) ?? (await open(path, 'r'));
      this.#open.set(path, handle);
      const bytes = Buffer.alloc(length);
      await handle.read(bytes, 0, length, tensor.offset + offset);
      return bytes;
    } catch (error) {
      throw toReadError(error, path);
    }
  };

  async close(): Promise<void> {
    for (const handle of [...this.#open.values(), ...this.#sources.values()]) await handle.close();
  }
}
