import { z } from 'zod';
import { WeldlineError } from './errors.ts';
import { appliedRule } from './plan/plan-schema.ts';

/** Written last: a directory without it is not a finished merge. */
export const MANIFEST_FILE = 'weldline.json';

/** Names a published artefact inside it, and is published last: a place without it holds no release. */
export const RELEASE_FILE = 'release.json';

/** Says that weights were removed to save space: adapters and documents are what stayed. */
export const PRUNED_FILE = 'pruned.json';

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const fileSchema = z.object({
  path: z.string().regex(/^[A-Za-z0-9_.-][A-Za-z0-9_. -]*$/),
  size: z.number().int().nonnegative(),
  sha256: digest,
});

/** A base or an adapter, as manifests and releases name it. */
export const inputSchema = z.object({
  /** `base`, or the id of an adapter. */
  id: z.string(),
  /** How the recipe names it; a local directory by its last component only. */
  model: z.string(),
  /** The hub commit, where it came from a hub. */
  commit: z.string().optional(),
  /** What pinned it, where it came from another place: a digest, hex. */
  pin: z.string().optional(),
  trainingRun: z.string().optional(),
  files: z.array(fileSchema),
});

const manifestSchema = z.object({
  format: z.literal('weldline.merge'),
  engine: z.object({ version: z.string(), format: z.number().int() }),
  plan: digest,
  recipe: z.object({ name: z.string(), version: z.string(), digest }).optional(),
  inputs: z.array(inputSchema),
  options: z.record(z.string(), z.union([z.string(), z.number()])),
  /** Names of the binding rules that were applied, by adapter. */
  rules: z.array(appliedRule),
  /** Keys of config.json that differ from the base's. */
  configEdits: z.array(z.object({ path: z.array(z.string()), value: z.unknown() })),
  warnings: z.array(z.string()),
  /** How far a 16-bit base is from what NF4 makes of it, where that was a choice; on samples. */
  nf4Distance: z
    .object({ relative: z.number(), tensors: z.number(), values: z.number() })
    .optional(),
  tensors: z.object({ total: z.number(), merged: z.number(), replaced: z.number() }),
  /** Every file beside this one. */
  files: z.array(fileSchema),
});

/** What went into a merged checkpoint and what came out. Holds no times: same inputs, same bytes. */
export type Manifest = z.infer<typeof manifestSchema>;
export type ManifestFile = z.infer<typeof fileSchema>;

export function formatManifest(manifest: Manifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/** @throws WeldlineError `manifest.invalid` */
export function parseManifest(text: string, where: string): Manifest {
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new WeldlineError(
      'manifest.invalid',
      `${where} is not a manifest that this version of weldline can read.`,
      { cause: error },
    );
  }
}
