import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Recipe } from '../config/recipe.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { systemErrorCode } from '../engine/errors.ts';
import { identityOf, type ModelAccess, type ResolvedModel } from '../sources/model-input.ts';
import { plannedTargets } from './check-targets.ts';
import type { PublishedRelease } from './night-types.ts';
import type { ReportInput } from './quality-types.ts';
import { resolvedAdapters } from './resolved-adapters.ts';
import type { ResolvedInputs } from './types.ts';

const record = z.strictObject({
  artefact: z.string().min(1),
  version: z.string().min(1),
  startedAt: z.iso.datetime(),
  inputs: z.record(z.string(), z.string()),
});

/**
 * The last release of a recipe that went through, as this home knows it. What cannot be read is taken
 * for none: the recipe is then released once more than needed.
 * @throws WeldlineError `disk.read-failed`
 */
export async function readLedger(
  home: string,
  name: string,
): Promise<PublishedRelease | undefined> {
  const path = ledgerFile(home, name);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw toReadError(error, path);
  }
  try {
    return record.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/**
 * Writes down a release that is published as a whole; of another, or where data changed while it
 * was judged by them, nothing. A release that began later stays the last.
 * @throws WeldlineError `disk.*`
 */
export async function writeLedger(
  home: string,
  access: ModelAccess,
  input: ReportInput,
): Promise<void> {
  const { recipe, inputs, run } = input;
  if (!isPublished(input) || (await haveChanged(recipe, run.startedAt))) return;
  const last = await readLedger(home, recipe.name);
  if (last !== undefined && Date.parse(last.startedAt) > Date.parse(run.startedAt)) return;
  const entry: PublishedRelease = {
    artefact: inputs.artefact,
    version: recipe.version,
    startedAt: run.startedAt,
    inputs: await digestInputs(access, recipe, inputs),
  };
  await mkdir(join(home, 'ledger'), { recursive: true });
  await writeFileDurably(ledgerFile(home, recipe.name), `${JSON.stringify(entry, null, 2)}\n`);
}

/** Names of recipes are plain: they can be names of files. */
function ledgerFile(home: string, name: string): string {
  return join(home, 'ledger', `${name}.json`);
}

/** Reports are written before a person is asked too, and of what the gate refused. */
function isPublished({ recipe, publications, quality }: ReportInput): boolean {
  if (recipe.approval === 'required' && quality?.approval === undefined) return false;
  if (recipe.publish.length === 0) return false;
  const wanted = plannedTargets(recipe).reduce((count, { parts }) => count + parts.length, 0);
  return publications.length >= wanted;
}

/** What is gone has changed too: a release that is published does not fail for it. */
async function haveChanged(recipe: Recipe, since: string): Promise<boolean> {
  for (const path of dataOf(recipe)) {
    const state = await stat(path).catch(() => undefined);
    if (state === undefined || state.ctimeMs > Date.parse(since)) return true;
  }
  return false;
}

/**
 * `PublishedRelease.inputs`. Who is asked when the gate refuses decides nothing about the bytes.
 * @throws WeldlineError `source.not-found`, `disk.read-failed`
 */
export async function digestInputs(
  access: ModelAccess,
  recipe: Recipe,
  inputs: ResolvedInputs,
  signal?: AbortSignal,
): Promise<PublishedRelease['inputs']> {
  const { version: _version, approval: _approval, evaluation, ...rest } = recipe;
  const { onFailure: _onFailure, ...judging } = evaluation ?? {};
  const digests: Record<string, string> = {
    base: contentOf(inputs.base),
    recipe: digestOf({ ...rest, evaluation: evaluation && judging }),
  };
  for (const { id, resolved } of resolvedAdapters({ recipe }, inputs)) {
    digests[`adapter ${id}`] = contentOf(resolved);
  }
  for (const path of dataOf(recipe)) digests[path] = await access.digests.digest(path, { signal });
  await access.digests.save();
  return digests;
}

/** A commit that changes none of the files that are read changes nothing. */
function contentOf(model: ResolvedModel): string {
  if (model.kind !== 'hub') return identityOf(model);
  const files = model.files.map(({ path, sha256, gitSha1 }) => [path, sha256 ?? gitSha1]);
  return digestOf([model.repo, model.folder, files]);
}

/** Paths of suites, calibration data and importance matrices. */
function dataOf({ evaluation, conversions = [] }: Recipe): readonly string[] {
  const paths = [
    ...(evaluation?.suites ?? []).flatMap(({ data, text }) => [data, text]),
    ...conversions.flatMap((conversion) => {
      if (conversion.kind !== 'gguf') return [conversion.calibration];
      const { imatrix } = conversion;
      return imatrix === undefined ? [] : Object.values(imatrix);
    }),
  ];
  return [...new Set(paths.filter((path) => path !== undefined))];
}
