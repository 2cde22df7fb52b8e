import { chmod, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MODEL_CONFIG_FILE } from './architectures/model-config.ts';
import { toWriteError } from './disk-errors.ts';
import { copyFileDurably, digestFile, syncDirectory, writeFileDurably } from './durable-files.ts';
import { WeldlineError } from './errors.ts';
import { formatManifest, MANIFEST_FILE, type Manifest, type ManifestFile } from './manifest.ts';
import { optionTexts } from './manifest-options.ts';
import { editConfigText } from './plan/config-edits.ts';
import { ENGINE_FORMAT, type Plan, type SideFile } from './plan/plan.ts';
import { isMerged } from './plan/planned-tensor.ts';
import { SINGLE_FILE } from './safetensors/checkpoint.ts';
import { formatIndex, INDEX_FILE } from './safetensors/weight-index.ts';
import { ENGINE_VERSION } from './version.ts';

/** What the manifest says beyond the plan. */
export interface Provenance {
  readonly recipe?: Manifest['recipe'];
  /** By input id: the name a recipe gives it, the hub commit or other pin, the training run. */
  readonly inputs: Readonly<
    Record<
      string,
      {
        readonly model: string;
        readonly commit?: string;
        readonly pin?: string;
        readonly trainingRun?: string;
      }
    >
  >;
}

export interface SealOptions {
  readonly plan: Plan;
  readonly planDigest: string;
  /** The finished shards, in the order of the plan. */
  readonly shards: readonly { readonly size: number; readonly sha256: string }[];
  readonly roots: Readonly<Record<string, string>>;
  /** Directory that holds the finished shards; the rest is written beside them. */
  readonly directory: string;
  readonly provenance: Provenance;
}

/**
 * Makes a merge a checkpoint: side files, config.json, index, and last the manifest. Idempotent.
 *
 * @throws WeldlineError `merge.input-changed` if a side file is no longer what was planned; `disk.*`
 */
export async function sealMerge(options: SealOptions): Promise<Manifest> {
  const { plan, directory } = options;
  try {
    await mkdir(directory, { recursive: true });
    const files: ManifestFile[] = plan.shards.map(({ file }, index) => {
      const { size, sha256 } = options.shards[index] as SealOptions['shards'][number];
      return { path: file, size, sha256 };
    });
    for (const sideFile of plan.sideFiles) files.push(await copySideFile(options, sideFile));
    if (plan.shards.length > 1 || plan.shards[0]?.file !== SINGLE_FILE) {
      files.push(await writeText(directory, INDEX_FILE, indexText(plan)));
    }
    files.sort((a, b) => (a.path < b.path ? -1 : 1));
    await removePartials(directory);
    const manifest = buildManifest(options, files);
    await syncDirectory(directory);
    await writeFileDurably(join(directory, MANIFEST_FILE), formatManifest(manifest));
    return manifest;
  } catch (error) {
    throw toWriteError(error, directory);
  }
}

/** Files that an attempt was writing when it was killed. */
async function removePartials(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (name.endsWith('.partial')) await rm(join(directory, name), { force: true });
  }
}

async function copySideFile(options: SealOptions, file: SideFile): Promise<ManifestFile> {
  const { plan, directory, roots } = options;
  const source = join(roots[file.input] ?? '', file.path);
  const target = join(directory, file.path);
  if ((await digestFile(source)).sha256 !== file.sha256) {
    throw new WeldlineError(
      'merge.input-changed',
      `${source} changed since the merge was planned. Run again to plan with the new file.`,
    );
  }
  if (file.path === MODEL_CONFIG_FILE && plan.configEdits.length > 0) {
    const text = editConfigText(await readFile(source, 'utf8'), plan.configEdits);
    return writeText(directory, file.path, text);
  }
  // Inputs may be read-only, in a cache for example; the copy need not be.
  await rm(target, { force: true });
  await copyFileDurably(source, target);
  await chmod(target, 0o644);
  return { path: file.path, size: file.size, sha256: file.sha256 };
}

async function writeText(directory: string, path: string, text: string): Promise<ManifestFile> {
  const target = join(directory, path);
  await writeFileDurably(target, text);
  return { path, ...(await digestFile(target)) };
}

function indexText(plan: Plan): string {
  const fileByTensor = new Map<string, string>();
  let totalBytes = 0;
  for (const { file, tensors } of plan.shards) {
    for (const tensor of tensors) {
      fileByTensor.set(tensor.name, file);
      totalBytes += tensor.byteLength;
    }
  }
  return formatIndex(fileByTensor, totalBytes);
}

function buildManifest(options: SealOptions, files: ManifestFile[]): Manifest {
  const { plan, planDigest, provenance } = options;
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  return {
    format: 'weldline.merge',
    engine: { version: ENGINE_VERSION, format: ENGINE_FORMAT },
    plan: planDigest,
    ...(provenance.recipe === undefined ? {} : { recipe: provenance.recipe }),
    inputs: plan.inputs.map(({ id, files: inputFiles }) => ({
      id,
      model: id,
      ...provenance.inputs[id],
      files: inputFiles,
    })),
    options: optionTexts(plan.options),
    rules: plan.rules,
    configEdits: plan.configEdits,
    warnings: plan.warnings,
    ...(plan.nf4Distance && { nf4Distance: plan.nf4Distance }),
    tensors: {
      total: tensors.length,
      merged: tensors.filter(isMerged).length,
      replaced: tensors.filter(({ from, tokens }) => from.input !== 'base' || tokens).length,
    },
    files,
  };
}
