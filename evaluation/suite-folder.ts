import { mkdir, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { canonicalJson, digestOf } from '../engine/canonical-json.ts';
import { toReadError, toWriteError } from '../engine/disk-errors.ts';
import { writeFileDurably } from '../engine/durable-files.ts';
import { systemErrorCode } from '../engine/errors.ts';
import type { DistributionComparison } from './results.ts';

/** Part of all keys: answers that were made or kept in another way are made again. */
const FORMAT = 1;

const outcomeSchema = z.object({
  answers: z.array(z.string()),
  perplexity: z
    .object({ value: z.number().positive(), tokens: z.number().int().positive() })
    .optional(),
  /** Why the rest is missing, of a model that computes no numbers. */
  notFinite: z.string().optional(),
});

const comparisonSchema = z.object({
  positions: z.number().int().nonnegative(),
  klMean: z.number(),
  klMax: z.number(),
  logitDifferenceMax: z.number(),
  ofLogProbabilities: z.boolean(),
  top1Agreement: z.number().min(0).max(1),
  tokenizedDifferently: z.array(z.number().int().nonnegative()),
});

/** What a model said to a suite, whoever asks: in the order of the suite. */
export type SuiteOutcome = z.infer<typeof outcomeSchema>;

/** What decides the content of a folder. */
export interface SuiteFolderKey {
  readonly artefactDigest: string;
  readonly suiteDigest: string;
  /** `Runner.identity` */
  readonly runner: string;
}

/**
 * The folder of one model's work on one suite. It is named by what decides the results, so the same
 * model is never asked twice, whichever release it belongs to and whatever it is called there.
 */
export class SuiteFolder {
  readonly path: string;
  /** Answers as they come. */
  readonly journal: string;
  /** What others are compared with. */
  readonly distributions: string;
  readonly #outcome: string;

  constructor(directory: string, key: SuiteFolderKey) {
    this.path = join(directory, digestOf({ format: FORMAT, ...key }));
    this.journal = join(this.path, 'answers.jsonl');
    this.distributions = join(this.path, 'distributions');
    this.#outcome = join(this.path, 'outcome.json');
  }

  /** @throws WeldlineError `disk.full`, `output.not-writable`, `disk.write-failed` */
  async make(): Promise<void> {
    try {
      await mkdir(this.path, { recursive: true });
    } catch (error) {
      throw toWriteError(error, this.path);
    }
  }

  /**
   * Undefined until all is answered and measured.
   * @param count how many answers there must be
   */
  async readOutcome(count: number): Promise<SuiteOutcome | undefined> {
    const outcome = await readJson(this.#outcome, outcomeSchema);
    return outcome?.answers.length === count ? outcome : undefined;
  }

  /** The outcome replaces the journal. */
  async writeOutcome(outcome: SuiteOutcome): Promise<void> {
    await writeFileDurably(this.#outcome, canonicalJson(outcome));
    await rm(this.journal, { force: true });
  }

  async readComparison(
    reference: SuiteFolder,
  ): Promise<Omit<DistributionComparison, 'with'> | undefined> {
    return readJson(this.#comparisonWith(reference), comparisonSchema);
  }

  async writeComparison(
    reference: SuiteFolder,
    comparison: Omit<DistributionComparison, 'with'>,
  ): Promise<void> {
    await writeFileDurably(this.#comparisonWith(reference), canonicalJson(comparison));
  }

  #comparisonWith(reference: SuiteFolder): string {
    return join(this.path, `compared-${basename(reference.path)}.json`);
  }
}

/** What a file holds; undefined if it is not there, or is not what is written there. */
async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw toReadError(error, path);
  }
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
