import { mkdir, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { sha256Of } from '../engine/canonical-json.ts';
import { WeldlineError } from '../engine/errors.ts';
import { formatManifest, MANIFEST_FILE, type Manifest, RELEASE_FILE } from '../engine/manifest.ts';
import { mergeModel } from '../engine/merge/merge-model.ts';
import { chooseResources } from '../engine/merge/resources.ts';
import type { MergeProgress } from '../engine/merge/shard-options.ts';
import type { Provenance } from '../engine/seal.ts';
import type { FetchProgress } from '../sources/fetch-blobs.ts';
import type { ModelAccess } from '../sources/model-input.ts';
import { withArchive } from './archived-adapters.ts';
import { mergeOfRelease, readRecord } from './artefact-record.ts';
import { findInputs } from './find-inputs.ts';
import { type OpenedArtefact, openArtefact } from './open-artefact.ts';
import { planAgain, requireEngine } from './plan-again.ts';

export interface ReproduceOptions {
  readonly access: ModelAccess;
  /** A path, of a directory or its `release.json`, or a URI. */
  readonly target: string;
  readonly base?: string | undefined;
  /** Where the merge is made; what was not there before and nobody named is removed afterwards. */
  readonly output: string;
  readonly isKept: boolean;
  readonly threads?: number | undefined;
  readonly memoryBudgetBytes: number;
  readonly signal: AbortSignal;
  readonly onFetch: (progress: FetchProgress) => void;
  readonly onBytes: (count: number) => void;
  readonly onMerge: (progress: MergeProgress) => void;
}

export interface ReproducedFile {
  readonly path: string;
  /** What the manifest says; empty where it does not list the file. */
  readonly sha256: string;
  /** What came out; absent where it did not. */
  readonly found?: string;
}

export interface Reproduction {
  readonly target: string;
  readonly plan: string;
  readonly files: readonly ReproducedFile[];
  /** Id of the conversion that was asked for, which was not made again. */
  readonly conversion?: string;
}

/**
 * Makes the merge of a release again, from its pinned inputs, and compares it file by file.
 * @throws WeldlineError `verify.input-missing`, `verify.other-engine`, `verify.other-plan`,
 *   `verify.digest-mismatch` for inputs that are not those that were merged, `output.exists`; what
 *   fetching and merging throw
 */
export async function reproduceMerge(options: ReproduceOptions): Promise<Reproduction> {
  const { access, signal, output } = options;
  const isRecord = basename(options.target) === RELEASE_FILE;
  const target = isRecord ? dirname(options.target) : options.target;
  const artefact = await openArtefact(access, target, signal);
  const { merge, manifestDigest, conversion } = await whatWasMerged(artefact);
  requireEngine(merge);
  try {
    const made = await withArchive(artefact, merge, options, async (archived) => {
      const { roots, missing } = await findInputs({
        access,
        inputs: merge.inputs,
        archived,
        base: options.base,
        mayFetch: true,
        signal,
        onProgress: options.onFetch,
        onBytes: options.onBytes,
      });
      if (missing.length > 0) throw inputsMissing(artefact.name, missing);
      return mergeAgain(merge, roots, options);
    });
    return {
      target: artefact.name,
      plan: merge.plan,
      files: compare(merge, made, manifestDigest),
      ...(conversion !== undefined && { conversion }),
    };
  } finally {
    if (!options.isKept) await rm(output, { recursive: true, force: true });
  }
}

interface WhatWasMerged {
  readonly merge: Manifest;
  /** Of the manifest of the merge, where that is part of the artefact. */
  readonly manifestDigest?: string;
  readonly conversion?: string;
}

async function whatWasMerged(artefact: OpenedArtefact): Promise<WhatWasMerged> {
  const { sizes } = artefact.files;
  if (!sizes.has(MANIFEST_FILE) && !sizes.has('conversion.json') && sizes.has(RELEASE_FILE)) {
    return { merge: await mergeOfRelease(artefact) };
  }
  const { merge, manifestDigest, conversion } = await readRecord(artefact);
  if (merge === undefined) {
    throw new WeldlineError(
      'verify.input-missing',
      `${artefact.name} is the conversion ${conversion ?? ''} and does not say what it was made of. ` +
        'Reproduce the merged checkpoint of the same release.',
    );
  }
  return conversion === undefined ? { merge, manifestDigest } : { merge, conversion };
}

async function mergeAgain(
  merge: Manifest,
  roots: Readonly<Record<string, string>>,
  options: ReproduceOptions,
): Promise<Manifest> {
  const { output, threads, memoryBudgetBytes, signal, onMerge: onProgress } = options;
  const plan = await planAgain(merge, roots);
  // What an earlier run was killed before it compared.
  if (!options.isKept) await rm(output, { recursive: true, force: true });
  await mkdir(dirname(output), { recursive: true });
  const { manifest, existed } = await mergeModel({
    plan,
    roots,
    output,
    resources: chooseResources(plan, { threads, memoryBudgetBytes }),
    provenance: provenanceOf(merge),
    signal,
    onProgress,
  });
  if (!existed) return manifest;
  throw new WeldlineError(
    'output.exists',
    `${output} holds this merge already, and nothing would be made again. Name another --output.`,
  );
}

function provenanceOf({ recipe, inputs }: Manifest): Provenance {
  const described = inputs.map(({ id, model, commit, pin, trainingRun }) => [
    id,
    {
      model,
      ...(commit !== undefined && { commit }),
      ...(pin !== undefined && { pin }),
      ...(trainingRun !== undefined && { trainingRun }),
    },
  ]);
  return { ...(recipe && { recipe }), inputs: Object.fromEntries(described) };
}

/** Manifests name the version of weldline, so only the same version gives the same one. */
function compare(
  merge: Manifest,
  made: Manifest,
  manifestDigest: string | undefined,
): ReproducedFile[] {
  const found = new Map(made.files.map(({ path, sha256 }) => [path, sha256]));
  const wanted: ReproducedFile[] = merge.files.map(({ path, sha256 }) => {
    const digest = found.get(path);
    return { path, sha256, ...(digest !== undefined && { found: digest }) };
  });
  const listed = new Set(wanted.map(({ path }) => path));
  for (const { path, sha256 } of made.files) {
    if (!listed.has(path)) wanted.push({ path, sha256: '', found: sha256 });
  }
  if (manifestDigest === undefined || made.engine.version !== merge.engine.version) return wanted;
  const own = {
    path: MANIFEST_FILE,
    sha256: manifestDigest,
    found: sha256Of(formatManifest(made)),
  };
  return [...wanted, own];
}

function inputsMissing(name: string, missing: readonly string[]): WeldlineError {
  return new WeldlineError(
    'verify.input-missing',
    `${name} cannot be made again without what it was made of: ${missing.join('; ')}.`,
  );
}
