import { canonicalJson, sha256Of } from '../canonical-json.ts';
import { WeldlineError } from '../errors.ts';
import type { TorchDtype } from '../safetensors/dtype.ts';
import type { Combination } from './combination.ts';
import type { MergeOnto } from './merge-onto-choices.ts';
import { type InputFile, type Plan, planSchema, type SideFile } from './plan-schema.ts';

export type * from './plan-schema.ts';
export { ENGINE_FORMAT, PLAIN_PATH } from './plan-schema.ts';

/** A file of an input whose content is not known, only how large it is. */
export type UnreadFile = Omit<InputFile, 'sha256'>;
export type UnreadSideFile = Omit<SideFile, 'sha256'>;

/**
 * A plan as far as headers tell. It lacks the digests of its files, so it has no digest of its own
 * and nothing that merges takes it: that is a `Plan`.
 */
export type PlanPreview = Omit<Plan, 'inputs' | 'sideFiles'> & {
  readonly inputs: readonly { readonly id: string; readonly files: readonly UnreadFile[] }[];
  readonly sideFiles: readonly UnreadSideFile[];
};

export interface MergeOptions {
  /** Dtype of every floating-point tensor of the output; by default each keeps its own. */
  readonly dtype?: TorchDtype | undefined;
  /** Largest size of an output shard in bytes; by default the base's files are kept. */
  readonly shardBytesMax?: number | undefined;
  /** Which weights the adapter is merged onto; must be given where the base is quantised. */
  readonly mergeOnto?: MergeOnto | undefined;
  /** How adapters are combined; must be given where there are several. */
  readonly combination?: Combination | undefined;
}

/** Of a weight's magnitude: anything larger is a slip. */
export const WEIGHT_MAX = 1000;

/** Far more adapters than anyone merges at once, and far fewer than the kernel has room for. */
export const ADAPTERS_MAX = 32;

/** The text of a plan's file: canonical JSON, whose SHA-256 is the plan's digest. */
export function formatPlan(plan: Plan): string {
  return canonicalJson(plan);
}

/**
 * What resuming is keyed by: covers the inputs' digests, the options and the engine format. Takes a
 * second for the largest models: take it once, and hand it on.
 */
export function planDigest(plan: Plan): string {
  return sha256Of(formatPlan(plan));
}

/**
 * Reads a plan back from its file.
 * @param digest the plan's, which the text must have
 * @param where the file, for errors
 * @throws WeldlineError `plan.invalid`
 */
export function parsePlan(text: string, digest: string, where: string): Plan {
  if (sha256Of(text) !== digest) {
    throw new WeldlineError(
      'plan.invalid',
      `${where} is not the plan it was written as. Delete it and plan again.`,
    );
  }
  try {
    return planSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new WeldlineError(
      'plan.invalid',
      `${where} is not a plan of this version of weldline. Delete it and plan again.`,
      { cause: error },
    );
  }
}
