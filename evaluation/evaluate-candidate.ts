import { assert, WeldlineError } from '../engine/errors.ts';
import { AnswerJournal } from './answer-journal.ts';
import { type CandidateStep, referenceFor } from './candidate.ts';
import {
  type CandidateModel,
  candidateRunnerIdentity,
  type EvaluationTools,
  startCandidateRunner,
} from './candidate-runner.ts';
import { compareDistributions } from './compare-distributions.ts';
import {
  hasDistributions,
  POSITIONS_PER_TEXT_MAX,
  writeDistributions,
} from './distribution-store.ts';
import { mapInTurns } from './map-in-turns.ts';
import { measurePerplexity, windowsOf } from './perplexity.ts';
import type { DistributionComparison, SuiteResult } from './results.ts';
import type { DistributionRequest, Distributions, Runner } from './runner.ts';
import type { Suite } from './suite.ts';
import { SuiteFolder, type SuiteOutcome } from './suite-folder.ts';
import { isCorrect } from './suites/matchers.ts';

export interface EvaluationProgress {
  readonly suite: string;
  readonly phase: 'answers' | 'perplexity' | 'distributions';
  readonly done: number;
  readonly total: number;
}

export interface EvaluateCandidateOptions {
  readonly step: CandidateStep;
  /** All suites, or those that it is asked. */
  readonly suites: readonly Suite[];
  readonly model: CandidateModel;
  /** `CandidateModel.digest` of the candidates that it is compared with, by id. */
  readonly references?: Readonly<Record<string, string>>;
  readonly tools: EvaluationTools;
  /** Where results are kept, of all candidates of all releases. */
  readonly directory: string;
  readonly signal: AbortSignal;
  readonly onProgress?: ((progress: EvaluationProgress) => void) | undefined;
  readonly logFile?: string | undefined;
}

/**
 * Asks one candidate its suites, keeps what others are compared with, and compares it with its
 * reference, which must have been evaluated before with the same `directory`.
 *
 * Everything is kept as it comes: an answered prompt is never asked again, after whatever crash, and
 * a model that was evaluated before is not even started.
 *
 * @returns a result for each suite of the step, in its order
 * @throws WeldlineError `tool.*`, `evaluate.*`, `disk.*`; the reason of `signal`
 */
export async function evaluateCandidate(
  options: EvaluateCandidateOptions,
): Promise<readonly SuiteResult[]> {
  const { step, suites } = options;
  const evaluation = new CandidateEvaluation(options);
  try {
    const results: SuiteResult[] = [];
    for (const id of step.suites) {
      const suite = suites.find((each) => each.id === id);
      assert(suite !== undefined, `the suite ${id} of ${step.id} is not loaded`);
      results.push(await evaluation.evaluate(suite));
    }
    return results;
  } finally {
    await evaluation.close();
  }
}

class CandidateEvaluation {
  readonly #options: EvaluateCandidateOptions;
  readonly #identity: string;
  #runner: Promise<Runner> | undefined;

  constructor(options: EvaluateCandidateOptions) {
    this.#options = options;
    this.#identity = candidateRunnerIdentity(options);
  }

  async evaluate(suite: Suite): Promise<SuiteResult> {
    const { step, model } = this.#options;
    const folder = this.#folder(suite, model.digest);
    await folder.make();
    const count = suite.exercises.length;
    const asked = (await folder.readOutcome(count)) ?? (await this.#ask(suite, folder));
    const { outcome, comparison } = await this.#distribute(suite, asked, folder);
    const answers = await mapInTurns(suite.exercises, (exercise, at) => {
      const text = outcome.answers[at] ?? '';
      return { index: exercise.index, text, correct: isCorrect(text, exercise) };
    });
    const correct = answers.filter((answer) => answer.correct).length;
    return {
      candidate: step.id,
      suite: suite.id,
      suiteDigest: suite.digest,
      runner: this.#identity,
      artefactDigest: model.digest,
      answers,
      ...(answers.length === 0 ? {} : { score: correct / answers.length }),
      ...(outcome.perplexity === undefined ? {} : { perplexity: outcome.perplexity }),
      ...(comparison === undefined ? {} : { comparison }),
      ...(outcome.notFinite === undefined ? {} : { notFinite: outcome.notFinite }),
    };
  }

  async close(): Promise<void> {
    const runner = await this.#runner?.catch(() => undefined);
    await runner?.close();
  }

  #folder(suite: Suite, artefactDigest: string): SuiteFolder {
    const key = { artefactDigest, suiteDigest: suite.digest, runner: this.#identity };
    return new SuiteFolder(this.#options.directory, key);
  }

  /** Started when there is something to ask, once. */
  #start(): Promise<Runner> {
    this.#runner ??= startCandidateRunner(this.#options);
    return this.#runner;
  }

  async #ask(suite: Suite, folder: SuiteFolder): Promise<SuiteOutcome> {
    const { signal } = this.#options;
    const answers = await AnswerJournal.read(folder.journal);
    const missing = suite.exercises.filter(({ index }) => !answers.has(index));
    const { text } = suite;
    const measured = await this.#unlessNotFinite(async () => {
      if (missing.length > 0) await this.#answer(suite, missing, folder, answers);
      if (text === undefined) return {};
      const perplexity = await measurePerplexity(await this.#start(), text, signal, (done, total) =>
        this.#report(suite, 'perplexity', done, total),
      );
      return { perplexity };
    });
    const outcome: SuiteOutcome = {
      answers: suite.exercises.map(({ index }) => answers.get(index) ?? ''),
      ...measured,
    };
    await folder.writeOutcome(outcome);
    return outcome;
  }

  /** Keeps distributions for others, and compares them with those of its reference. */
  async #distribute(
    suite: Suite,
    outcome: SuiteOutcome,
    folder: SuiteFolder,
  ): Promise<{ outcome: SuiteOutcome; comparison?: DistributionComparison | undefined }> {
    if (outcome.notFinite !== undefined) return { outcome };
    const found = await this.#unlessNotFinite(async () => {
      if (this.#options.step.referenceOf?.includes(suite.id)) {
        await this.#keep(suite, outcome, folder);
      }
      return { comparison: await this.#compare(suite, folder) };
    });
    if (!('notFinite' in found)) return { outcome, ...found };
    const { notFinite } = found;
    await folder.writeOutcome({ ...outcome, notFinite });
    return { outcome: { ...outcome, notFinite } };
  }

  /**
   * That a model computes no numbers is what the gate has to know of it, and no reason to stop the
   * release of others; of the base or an adapter on it, with which all are compared, it is.
   */
  async #unlessNotFinite<T>(work: () => Promise<T>): Promise<T | { readonly notFinite: string }> {
    const { kind } = this.#options.step;
    try {
      return await work();
    } catch (error) {
      const isResult = error instanceof WeldlineError && error.code === 'evaluate.not-finite';
      if (!isResult || kind === 'base' || kind === 'adapter') throw error;
      return { notFinite: error.message };
    }
  }

  async #answer(
    suite: Suite,
    missing: Suite['exercises'],
    folder: SuiteFolder,
    answers: Map<number, string>,
  ): Promise<void> {
    const runner = await this.#start();
    const requests = missing.map(({ index, prompt, addSpecialTokens }) => ({
      ...{ index, prompt, addSpecialTokens },
      newTokensMax: suite.newTokensMax,
    }));
    const journal = await AnswerJournal.open(folder.journal);
    try {
      this.#report(suite, 'answers', answers.size, suite.exercises.length);
      for await (const answer of runner.answer(requests, this.#options.signal)) {
        await journal.append(answer);
        answers.set(answer.index, answer.text);
        this.#report(suite, 'answers', answers.size, suite.exercises.length);
      }
    } finally {
      await journal.close();
    }
    const left = missing.find(({ index }) => !answers.has(index));
    if (left === undefined) return;
    throw new WeldlineError(
      'evaluate.runner-failed',
      `${runner.identity} said that it was done and left prompt ${left.index} of ${suite.id} without an ` +
        'answer. What is answered stays; see weldline doctor for which programs are used, and resume.',
    );
  }

  /** Keeps what others are compared with. */
  async #keep(suite: Suite, outcome: SuiteOutcome, folder: SuiteFolder): Promise<void> {
    if (await hasDistributions(folder.distributions)) return;
    const distributions = this.#distributions(await this.#start(), suite, outcome);
    if (distributions !== undefined) await writeDistributions(folder.distributions, distributions);
  }

  async #compare(suite: Suite, folder: SuiteFolder): Promise<DistributionComparison | undefined> {
    const { step, references } = this.#options;
    const id = referenceFor(step, suite.id);
    if (id === undefined) return undefined;
    const digest = references?.[id];
    assert(digest !== undefined, `${step.id} is compared with ${id}, whose digest is not given`);
    const reference = this.#folder(suite, digest);
    const kept = await folder.readComparison(reference);
    if (kept !== undefined) return { with: id, ...kept };
    const outcome = await reference.readOutcome(suite.exercises.length);
    if (outcome === undefined) throw changedMeanwhile(step.id, id, suite.id);
    if (outcome.notFinite !== undefined) return undefined;
    const distributions = this.#distributions(await this.#start(), suite, outcome);
    if (distributions === undefined) return undefined;
    const comparison = await compareDistributions(reference.distributions, distributions);
    await folder.writeComparison(reference, comparison);
    return { with: id, ...comparison };
  }

  #distributions(
    runner: Runner,
    suite: Suite,
    reference: SuiteOutcome,
  ): AsyncIterable<Distributions> | undefined {
    const requests = comparedTexts(runner, suite, reference);
    const distributions = runner.distributions?.(requests, this.#options.signal);
    if (distributions === undefined) return undefined;
    return this.#counted(suite, distributions, requests.length);
  }

  async *#counted(
    suite: Suite,
    distributions: AsyncIterable<Distributions>,
    total: number,
  ): AsyncGenerator<Distributions> {
    let done = 0;
    for await (const each of distributions) {
      yield each;
      this.#report(suite, 'distributions', ++done, total);
    }
  }

  #report(suite: Suite, phase: EvaluationProgress['phase'], done: number, total: number): void {
    this.#options.onProgress?.({ suite: suite.id, phase, done, total });
  }
}

/** A suite that was edited, or a program that was installed, since the reference was asked. */
function changedMeanwhile(candidate: string, reference: string, suite: string): WeldlineError {
  return new WeldlineError(
    'evaluate.reference-missing',
    `${candidate} is compared with ${reference}, which was not asked this version of the suite ${suite} ` +
      'by this version of its program: one of them changed while the release ran. Resume, and all ' +
      'are asked what has changed.',
  );
}

/**
 * Where two models are compared: on each prompt with what the reference answered, since that is
 * where a fine-tune shows; on a suite without prompts, on its text.
 */
function comparedTexts(
  runner: Runner,
  suite: Suite,
  reference: SuiteOutcome,
): DistributionRequest[] {
  const positionsMax = POSITIONS_PER_TEXT_MAX;
  if (suite.exercises.length === 0) {
    return windowsOf(runner, suite.text ?? '').map((text, index) => ({
      ...{ index, text, addSpecialTokens: true, positionsMax },
    }));
  }
  return suite.exercises.map(({ index, prompt, addSpecialTokens }, at) => ({
    ...{ index, text: `${prompt}${reference.answers[at] ?? ''}`, addSpecialTokens, positionsMax },
  }));
}
