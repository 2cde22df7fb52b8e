import { join } from 'node:path';
import { WeldlineError } from '../engine/errors.ts';
import type { Manifest } from '../engine/manifest.ts';
import { mergeOptionsOf } from '../engine/manifest-options.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import { ENGINE_FORMAT, type Plan, planDigest } from '../engine/plan/plan.ts';
import { completePlan, previewMerge } from '../engine/plan/plan-merge.ts';
import { ENGINE_VERSION } from '../engine/version.ts';
import { openFileSource } from '../sources/file-source.ts';
import { noSuchFile } from '../sources/model-directory.ts';

/**
 * Plans a merge again, of inputs whose digests were checked.
 * @param roots directory of each input, by its id
 * @throws WeldlineError `verify.other-engine`, `verify.other-plan`; what planning throws
 */
export async function planAgain(
  manifest: Manifest,
  roots: Readonly<Record<string, string>>,
): Promise<Plan> {
  requireEngine(manifest);
  const [base, ...adapters] = manifest.inputs.map((input) => ({
    id: input.id,
    files: filesOf(input, roots[input.id] ?? ''),
  }));
  if (base?.id !== 'base') throw otherPlan(manifest);
  const ids = adapters.map(({ id }) => id);
  const preview = await previewMerge(base.files, adapters, mergeOptionsOf(manifest.options, ids));
  const digests = Object.fromEntries(
    manifest.inputs.map(({ id, files }) => [
      id,
      { digest: async (path: string) => digestIn(files, path) },
    ]),
  );
  // What was warned of depends on names too, of models and of places; it decides no byte. Of a
  // release, what was measured later stands behind what was planned.
  const complete = await completePlan(preview, digests);
  for (let count = manifest.warnings.length; count >= 0; count -= 1) {
    const plan: Plan = { ...complete, warnings: manifest.warnings.slice(0, count) };
    if (planDigest(plan) === manifest.plan) return plan;
  }
  throw otherPlan(manifest);
}

/** @throws WeldlineError `verify.other-engine` if this version gives other bytes */
export function requireEngine({ engine }: Pick<Manifest, 'engine'>): void {
  if (engine.format === ENGINE_FORMAT) return;
  throw new WeldlineError(
    'verify.other-engine',
    `It was made by weldline ${engine.version}, whose engine format is ${engine.format}; that of this ` +
      `version (${ENGINE_VERSION}) is ${ENGINE_FORMAT}, and may give other bytes. Use weldline ` +
      `${engine.version}.`,
  );
}

/** Of a directory only what was merged: what came to lie beside it since changes nothing. */
function filesOf({ files }: Manifest['inputs'][number], root: string): ModelFiles {
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  return {
    name: root,
    sizes,
    async open(path) {
      if (!sizes.has(path)) throw noSuchFile(root, path);
      return openFileSource(join(root, path));
    },
  };
}

function digestIn(files: Manifest['files'], path: string): string {
  const found = files.find((file) => file.path === path)?.sha256;
  if (found === undefined) throw noSuchFile('the manifest', path);
  return found;
}

function otherPlan({ plan }: Manifest): WeldlineError {
  return new WeldlineError(
    'verify.other-plan',
    `The inputs and options that the manifest names do not give its plan (${plan.slice(0, 16)}…): the ` +
      'manifest was changed, or a version of weldline made it that plans otherwise.',
  );
}
