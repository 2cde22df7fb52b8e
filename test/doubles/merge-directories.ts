import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { type MergedModel, mergeModel } from '../../engine/merge/merge-model.ts';
import { chooseResources, resourcesFor } from '../../engine/merge/resources.ts';
import type { MergeProgress } from '../../engine/merge/shard-options.ts';
import type { StreamedInputs } from '../../engine/merge/streamed-input.ts';
import type { MergeOptions, Plan } from '../../engine/plan/plan.ts';
import { planMerge } from '../../engine/plan/plan-merge.ts';
import { FileDigests } from '../../sources/file-digests.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import type { FileMap } from './tiny-model.ts';

export async function writeFiles(directory: string, files: FileMap): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const [path, bytes] of files) await writeFile(join(directory, path), bytes);
}

/** The files of a directory and of those in it, by their paths. */
export async function readFiles(directory: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(relative(directory, path), await readFile(path));
  }
  return new Map([...files].sort(([one], [other]) => (one < other ? -1 : 1)));
}

export interface Directories {
  readonly base: string;
  readonly adapter: string;
  /** Adapters after the first, by their ids; the first has the id "a". */
  readonly others?: Readonly<Record<string, string>>;
}

/** Plans over directories as the command does. */
export async function planDirectories(
  { base, adapter, others = {} }: Directories,
  options: MergeOptions = {},
): Promise<Plan> {
  const digests = new FileDigests();
  const open = async (root: string) => ({
    files: await openModelDirectory(root),
    digest: (path: string) => digests.digest(join(root, path)),
  });
  const adapters = await Promise.all(
    Object.entries({ a: adapter, ...others }).map(async ([id, root]) => ({
      id,
      ...(await open(root)),
    })),
  );
  return planMerge(await open(base), adapters, options);
}

export interface MergeDirectoriesOptions extends Directories {
  readonly output: string;
  readonly plan?: Plan;
  /** Inputs whose weights are read from elsewhere; `base` need not have them then. */
  readonly streamed?: StreamedInputs;
  readonly options?: MergeOptions;
  readonly threads?: number;
  /** With windows of this size, a multiple of the page size, whatever memory they take. */
  readonly windowBytes?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: MergeProgress) => void;
}

/** Plans (unless a plan is given) and merges, through the functions the command calls. */
export async function mergeDirectories(
  options: MergeDirectoriesOptions,
): Promise<MergedModel & { readonly plan: Plan }> {
  const { base, adapter, output, threads = 1 } = options;
  const plan = options.plan ?? (await planDirectories(options, options.options));
  const { windowBytes } = options;
  const resources =
    windowBytes === undefined
      ? chooseResources(plan, { threads, memoryBudgetBytes: 400_000_000 })
      : resourcesFor(plan, threads, windowBytes);
  const merged = await mergeModel({
    plan,
    roots: { base, a: adapter, ...options.others },
    ...(options.streamed && { streamed: options.streamed }),
    output,
    resources,
    provenance: { inputs: {} },
    signal: options.signal,
    onProgress: options.onProgress,
  });
  return { ...merged, plan };
}
