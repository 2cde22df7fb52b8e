import { type FileHandle, open, readdir, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { compileKernel } from '../../kernels/index.ts';
import { toReadError } from '../disk-errors.ts';
import { digestFile } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import { MANIFEST_FILE, type Manifest, parseManifest } from '../manifest.ts';
import { bandArenas } from '../merge/arena-sizes.ts';
import { type Cuts, findCuts } from '../merge/bands/find-cuts.ts';
import { isCopied } from '../merge/tensor-work.ts';
import type { ModelFiles } from '../model-files.ts';
import type { Plan, PlannedTensor } from '../plan/plan.ts';
import { readCheckpoint } from '../safetensors/checkpoint.ts';
import { verifyCopiedRows } from './copied-rows.ts';
import type { ReadTensor } from './factor-rows.ts';
import { findNonFinite } from './find-non-finite.ts';
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

export interface VerifyOptions {
  readonly directory: string;
  /** The files of `directory`. */
  readonly files: ModelFiles;
  /** The plan and where its inputs are, to recompute rows. */
  readonly recompute?: {
    readonly plan: Plan;
    readonly roots: Readonly<Record<string, string>>;
  };
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
  const { directory, files, recompute } = options;
  const manifest = await readManifest(directory);
  const bytesChecked = await verifyFiles(manifest, options);
  const checkpoint = await readCheckpoint(files);
  if (checkpoint.tensors.size !== manifest.tensors.total) {
    throw new WeldlineError(
      'verify.inventory-mismatch',
      `${directory} holds ${checkpoint.tensors.size} tensors, its manifest says ` +
        `${manifest.tensors.total}.`,
    );
  }
  const sampled =
    recompute === undefined
      ? { rows: 0, worst: 0 }
      : await verifyTensors(recompute.plan, recompute.roots, options);
  return {
    filesChecked: manifest.files.length,
    bytesChecked,
    tensorsChecked: checkpoint.tensors.size,
    rowsRecomputed: sampled.rows,
    worstRounding: Math.round(sampled.worst * 1000) / 1000,
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

async function verifyFiles(manifest: Manifest, options: VerifyOptions): Promise<number> {
  const { directory, signal, onBytes } = options;
  const listed = new Set(manifest.files.map((file) => file.path));
  const found = await readdir(directory);
  const foreign = found.find((name) => /\.safetensors(\.|$)/.test(name) && !listed.has(name));
  if (foreign !== undefined) {
    throw new WeldlineError(
      'verify.inventory-mismatch',
      `${directory} holds ${foreign}, which its manifest does not list. Remove it.`,
    );
  }
  let bytes = 0;
  for (const { path, size, sha256 } of manifest.files) {
    if (!found.includes(path)) {
      throw new WeldlineError(
        'verify.inventory-mismatch',
        `${directory} lacks ${path}, which its manifest lists.`,
      );
    }
    const digestOptions = { signal, ...(onBytes === undefined ? {} : { onBytes }) };
    const actual = await digestFile(join(directory, path), digestOptions);
    if (actual.sha256 !== sha256 || actual.size !== size) {
      throw new WeldlineError(
        'verify.digest-mismatch',
        `${join(directory, path)} is not the file that was made: its SHA-256 is ` +
          `${actual.sha256.slice(0, 16)}…, the manifest says ${sha256.slice(0, 16)}…. Restore it, or ` +
          'remove the directory and merge again.',
      );
    }
    bytes += size;
  }
  return bytes;
}

async function verifyTensors(
  plan: Plan,
  roots: Readonly<Record<string, string>>,
  options: VerifyOptions,
): Promise<{ rows: number; worst: number }> {
  const cuts = await provenCuts(plan, roots, options.signal);
  const inputs = new InputFiles(roots);
  let rows = 0;
  let worst = 0;
  try {
    for (const shard of plan.shards) {
      const output = await open(join(options.directory, shard.file), 'r');
      try {
        for (const tensor of shard.tensors) {
          options.signal?.throwIfAborted();
          if (tensor.byteLength === 0) continue;
          const chosen = chooseRows(tensor);
          if (isCopied(tensor)) {
            await verifyCopiedRows(tensor, chosen, inputs.read, output);
            continue;
          }
          await findNonFinite(tensor, output);
          const found = cuts.get(tensor.name);
          const far = await verifyRows(tensor, chosen, inputs.read, output, found);
          worst = Math.max(worst, far);
          rows += chosen.length;
        }
      } finally {
        await output.close();
      }
    }
  } finally {
    await inputs.close();
  }
  return { rows, worst };
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
  readonly #open = new Map<string, FileHandle>();

  constructor(roots: Readonly<Record<string, string>>) {
    this.#roots = roots;
  }

  readonly read: ReadTensor = async (tensor, offset, length) => {
    const path = join(this.#roots[tensor.input] ?? '', tensor.file);
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
    for (const handle of this.#open.values()) await handle.close();
  }
}
