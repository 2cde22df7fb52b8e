import { WeldlineError } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import { readHeader, type TensorEntry } from './header.ts';
import { INDEX_FILE, readIndex } from './weight-index.ts';

export const SINGLE_FILE = 'model.safetensors';

/** Headers of this many files are read at the same time: enough to hide a hub's latency. */
const PARALLEL_HEADERS = 8;

/** A tensor and the file it is in. */
export interface CheckpointTensor extends TensorEntry {
  /** Path of its file, relative to the checkpoint. */
  readonly file: string;
}

export interface CheckpointFile {
  readonly path: string;
  readonly size: number;
  /** In the order of their bytes. */
  readonly tensors: readonly CheckpointTensor[];
}

/** What the headers of a checkpoint say; no weight has been read. */
export interface Checkpoint {
  readonly files: readonly CheckpointFile[];
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** Safetensors files that are there but belong to no index; they are not read. */
  readonly extraFiles: readonly string[];
}

/**
 * Reads the headers of a checkpoint. `model.safetensors.index.json` is the authority where there is
 * one and is checked three ways: every file it names exists, every tensor it names is in the file
 * it says, and every tensor in those files is named by it.
 *
 * @throws WeldlineError `checkpoint.*`, or `safetensors.*` for a malformed file
 */
export async function readCheckpoint(files: ModelFiles): Promise<Checkpoint> {
  const weightFiles = [...files.sizes.keys()].filter((path) => /^[^/]+\.safetensors$/.test(path));
  if (files.sizes.has(INDEX_FILE)) {
    const weightMap = await readIndex(files);
    const indexed = [...new Set(weightMap.values())].sort();
    const checkpointFiles = await readHeaders(files, indexed);
    checkIndexAgainstHeaders(files.name, weightMap, checkpointFiles);
    return assemble(checkpointFiles, weightFiles);
  }
  if (!files.sizes.has(SINGLE_FILE)) throw noWeights(files, weightFiles);
  return assemble(await readHeaders(files, [SINGLE_FILE]), weightFiles);
}

function noWeights(files: ModelFiles, weightFiles: readonly string[]): WeldlineError {
  const paths = [...files.sizes.keys()];
  if (weightFiles.length > 0) {
    return new WeldlineError(
      'checkpoint.no-weights',
      `${files.name} has ${weightFiles.length} safetensors files (${weightFiles[0]}, …) but ` +
        `neither ${SINGLE_FILE} nor ${INDEX_FILE}. If the index was not downloaded, add it.`,
    );
  }
  if (paths.some((path) => /(^|\/)(\.metadata|.*\.distcp)$/.test(path))) {
    return new WeldlineError(
      'checkpoint.training-shards',
      `${files.name} holds sharded training state (FSDP or tensor parallel), not a checkpoint. ` +
        'Consolidate it first: "accelerate merge-weights <dir> <output>".',
    );
  }
  if (paths.some((path) => /\.(bin|pt|pth)$/.test(path))) {
    return new WeldlineError(
      'checkpoint.pickle-only',
      `${files.name} has its weights as PyTorch pickles only. Weldline never executes pickles; ` +
        'save the model with safetensors (save_pretrained does so by default).',
    );
  }
  return new WeldlineError(
    'checkpoint.no-weights',
    `${files.name} holds no weights: neither ${SINGLE_FILE} nor ${INDEX_FILE} is there.`,
  );
}

async function readHeaders(
  files: ModelFiles,
  paths: readonly string[],
): Promise<readonly CheckpointFile[]> {
  const results: CheckpointFile[] = new Array(paths.length);
  let next = 0;
  const readNext = async (): Promise<void> => {
    for (let index = next++; index < paths.length; index = next++) {
      const file = paths[index] as string;
      const source = await files.open(file);
      try {
        const header = await readHeader(source);
        const tensors = header.tensors.map(({ name, dtype, shape, offset, byteLength }) => {
          // Member by member: a spread takes three times the memory, of tens of thousands.
          return { name, dtype, shape, offset, byteLength, file };
        });
        results[index] = { path: file, size: source.size, tensors };
      } finally {
        await source.close();
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_HEADERS }, readNext));
  return results;
}

function checkIndexAgainstHeaders(
  where: string,
  weightMap: ReadonlyMap<string, string>,
  files: readonly CheckpointFile[],
): void {
  const holders = new Map<string, string>();
  for (const { path, tensors } of files) {
    for (const { name } of tensors) {
      const other = holders.get(name);
      if (other === undefined) holders.set(name, path);
      else throw duplicateTensor(where, name, other, path);
    }
  }
  for (const [name, holder] of holders) {
    if (!weightMap.has(name)) {
      throw new WeldlineError(
        'checkpoint.index-unlisted-tensor',
        `${where}: ${holder} holds tensor "${name}", which ${INDEX_FILE} does not list. The ` +
          'index and the files are not of one version; download both again.',
      );
    }
  }
  for (const [name, file] of weightMap) {
    if (holders.get(name) !== file) {
      throw new WeldlineError(
        'checkpoint.index-missing-tensor',
        `${where}: ${INDEX_FILE} says tensor "${name}" is in ${file}, and it is not. The index ` +
          'and the files are not of one version; download both again.',
      );
    }
  }
}

function duplicateTensor(where: string, name: string, one: string, other: string): WeldlineError {
  return new WeldlineError(
    'checkpoint.duplicate-tensor',
    `${where}: tensor "${name}" is in ${one} and ${other}. Which one counts cannot be known; ` +
      'restore the checkpoint as it was published.',
  );
}

function assemble(files: readonly CheckpointFile[], weightFiles: readonly string[]): Checkpoint {
  const tensors = new Map<string, CheckpointTensor>();
  for (const file of files) for (const tensor of file.tensors) tensors.set(tensor.name, tensor);
  const used = new Set(files.map((file) => file.path));
  return { files, tensors, extraFiles: weightFiles.filter((path) => !used.has(path)) };
}
