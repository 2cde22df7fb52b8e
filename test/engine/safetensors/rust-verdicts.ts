/** What the reference implementation said of `mutatedFiles(VERDICT_SEED, VERDICT_COUNT)`. */
export interface Verdicts {
  /** Version of the Python package. */
  readonly safetensors: string;
  /** SHA-256 of all the files, to notice when they are no longer the ones that were judged. */
  readonly files: string;
  /** Index of each file it accepted, and the digest of what it read from it. */
  readonly accepted: Readonly<Record<string, string>>;
}

export const VERDICT_SEED = 20_240;
export const VERDICT_COUNT = 4_000;
