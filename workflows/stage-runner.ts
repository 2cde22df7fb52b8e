import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  ChildWorkflowFailure,
  condition,
  isCancellation,
  log,
  setHandler,
  TimeoutFailure,
} from '@temporalio/workflow';
import type { FailureDetails } from '../activities/failures.ts';
import { showDetails, showInLists } from './current-details.ts';
import {
  type Listed,
  type Paused,
  pauseUpdate,
  resumeSignal,
  retryUpdate,
  type Stage,
  type StageStatus,
  type Waiting,
} from './messages.ts';
import { type StageOutcome, stageEnded } from './metrics.ts';

/** Space on the disk that merges before this one still need: they end, and nobody need be asked. */
const SPACE_TAKEN = 'disk.reserved';

/**
 * Runs the stages of a release and remembers how far it is. A stage that fails for a reason that a
 * person can mend does not throw the run away: it waits for the resume signal and runs again. A
 * person may also pause all, or have one stage begin again.
 */
export class StageRunner {
  readonly #stages: Map<Stage, StageStatus>;
  readonly #waiting = new Map<Stage, Waiting>();
  /** Stages that waited when a person said to go on. */
  readonly #goOn = new Set<Stage>();
  readonly #scopes = new Map<Stage, CancellationScope>();
  /** Stages whose work a person has stopped, to be begun again. */
  readonly #interrupted = new Set<Stage>();
  #paused: Paused | undefined;
  #listed: Listed | undefined;

  /** @param stages those that this release goes through */
  constructor(stages: readonly Stage[]) {
    this.#stages = new Map(stages.map((stage) => [stage, { stage, state: 'pending' }]));
    setHandler(resumeSignal, () => {
      for (const stage of this.#waiting.keys()) this.#goOn.add(stage);
      this.#paused = undefined;
      this.#show();
    });
    setHandler(pauseUpdate, ({ by }) => this.#pause(by), {
      validator: (_request) => {
        if (this.#paused !== undefined) throw new Error('The release is paused already.');
      },
    });
    setHandler(retryUpdate, (stage) => this.#retry(stage), {
      validator: (stage) => this.#checkRetry(stage),
    });
  }

  get stages(): readonly StageStatus[] {
    return [...this.#stages.values()];
  }

  /** All that it waits for; the first is the one to show where there is room for one. */
  get waitings(): readonly Waiting[] {
    return [...this.#waiting.values()];
  }

  get paused(): Paused | undefined {
    return this.#paused;
  }

  /** Where the release moves to another host all is done again, but what it keeps. */
  beginAgain(kept: readonly Stage[]): void {
    for (const stage of this.#stages.keys()) {
      if (!kept.includes(stage)) this.#stages.set(stage, { stage, state: 'pending' });
    }
    this.#show();
  }

  async run<T>(stage: Stage, work: () => Promise<T>): Promise<T> {
    const startedAtMs = Date.now();
    for (;;) {
      await this.#whilePaused(stage, startedAtMs);
      this.#set({ stage, state: 'running', startedAtMs });
      const begunAtMs = Date.now();
      const leave = (outcome: StageOutcome): void =>
        stageEnded(stage, outcome, Date.now() - begunAtMs);
      const scope = new CancellationScope();
      this.#scopes.set(stage, scope);
      try {
        const result = await scope.run(work);
        this.#end(stage);
        leave('done');
        this.#set({ stage, state: 'done', startedAtMs, finishedAtMs: Date.now() });
        return result;
      } catch (error) {
        const isInterrupted = this.#end(stage);
        const waiting = isCancellation(error) ? undefined : toWaiting(stage, error);
        // Work that is stopped between two attempts, or with its worker, ends with what went wrong.
        if (isInterrupted && (isCancellation(error) || waiting !== undefined)) {
          leave('interrupted');
          continue;
        }
        if (waiting?.code === SPACE_TAKEN) {
          leave('interrupted');
          log.info('The stage begins again until other merges have left it space', { stage });
          continue;
        }
        leave(waiting === undefined ? 'failed' : 'waiting');
        if (waiting === undefined) {
          this.#set({ stage, state: 'failed', startedAtMs });
          throw withCode(error);
        }
        await this.#mending(waiting, startedAtMs);
      }
    }
  }

  /** Shows that a stage waits for a person while it does. */
  async pause<T>(waiting: Waiting, wait: () => Promise<T>): Promise<T> {
    const { stage } = waiting;
    const before = this.#stages.get(stage) ?? { stage };
    this.#waiting.set(stage, waiting);
    this.#set({ ...before, state: 'waiting' });
    try {
      const word = await wait();
      // A person may say yes to a release that another has paused: it goes on when it is resumed.
      if (this.#paused !== undefined) {
        this.#waiting.delete(stage);
        this.#set({ ...before, state: 'paused' });
        await this.#resumed();
      }
      return word;
    } finally {
      this.#waiting.delete(stage);
      this.#set({ ...before, state: 'running' });
    }
  }

  async #mending(waiting: Waiting, startedAtMs: number): Promise<void> {
    const { stage } = waiting;
    log.warn('The release waits for a person', { ...waiting });
    // A person's word that nothing waited for must not let a later failure pass unseen.
    this.#goOn.delete(stage);
    try {
      await this.pause(waiting, () => condition(() => this.#goOn.has(stage)));
    } catch (cancellation) {
      this.#set({ stage, state: 'failed', startedAtMs });
      throw cancellation;
    }
  }

  async #whilePaused(stage: Stage, startedAtMs: number): Promise<void> {
    if (this.#paused === undefined) return;
    this.#set({ stage, state: 'paused', startedAtMs });
    try {
      await this.#resumed();
    } catch (cancellation) {
      this.#set({ stage, state: 'failed', startedAtMs });
      throw cancellation;
    }
  }

  #resumed(): Promise<void> {
    return condition(() => this.#paused === undefined);
  }

  /** Work stops where it is: what is journalled is found when it goes on. */
  #pause(by: string): void {
    this.#paused = { by, at: new Date().toISOString() };
    for (const stage of this.#scopes.keys()) this.#interrupt(stage);
    this.#show();
  }

  #retry(stage: Stage): void {
    if (this.#waiting.has(stage)) this.#goOn.add(stage);
    else this.#interrupt(stage);
  }

  #checkRetry(stage: Stage): void {
    const state = this.#stages.get(stage)?.state;
    if (state === undefined) {
      const stages = [...this.#stages.keys()].join(', ');
      throw new Error(`This release has no stage ${stage}. Its stages: ${stages}.`);
    }
    if (this.#paused !== undefined) {
      throw new Error('The release is paused. Resume it, and its stages begin again.');
    }
    const { needs = 'mending' } = this.#waiting.get(stage) ?? {};
    if (needs !== 'mending') throw new Error(`The stage ${stage} waits for a person's word.`);
    if (state !== 'waiting' && state !== 'running') {
      throw new Error(`The stage ${stage} is ${state}: there is nothing to try again.`);
    }
  }

  #interrupt(stage: Stage): void {
    if (this.#waiting.has(stage)) return;
    this.#interrupted.add(stage);
    this.#scopes.get(stage)?.cancel();
  }

  /** @returns whether a person had stopped it */
  #end(stage: Stage): boolean {
    this.#scopes.delete(stage);
    return this.#interrupted.delete(stage);
  }

  #set(status: StageStatus): void {
    this.#stages.set(status.stage, status);
    this.#show();
  }

  #show(): void {
    showDetails(this.stages, this.waitings, this.#paused);
    this.#listed = showInLists(this.#listed, this.stages, this.waitings, this.#paused);
  }
}

function rootFailure(error: unknown): unknown {
  let current = error;
  while (current instanceof ActivityFailure || current instanceof ChildWorkflowFailure) {
    if (current.cause === undefined) return current;
    current = current.cause;
  }
  return current;
}

/** The code of a failure of an activity. */
export function codeOf(error: unknown): string | undefined {
  const failure = rootFailure(error);
  return failure instanceof ApplicationFailure ? (failure.type ?? undefined) : undefined;
}

/** What a person could mend, if the failure is of that kind. */
function toWaiting(stage: Stage, error: unknown): Waiting | undefined {
  const failure = rootFailure(error);
  if (failure instanceof TimeoutFailure) {
    const message =
      'No worker finished this in time. See that workers run (weldline worker) and resume.';
    return { stage, code: 'temporal.worker-failed', message };
  }
  if (!(failure instanceof ApplicationFailure)) return undefined;
  const [details] = (failure.details ?? []) as [FailureDetails?];
  if (details === undefined || details.disposition === 'permanent') return undefined;
  return { stage, code: failure.type ?? 'internal.bug', message: failure.message };
}

/** A permanent failure, without the layers of Temporal around it: they say nothing to a person. */
export function withCode(error: unknown): unknown {
  const failure = rootFailure(error);
  if (!(failure instanceof ApplicationFailure)) return error;
  return ApplicationFailure.create({
    message: failure.message,
    type: failure.type ?? 'internal.bug',
    nonRetryable: true,
  });
}
