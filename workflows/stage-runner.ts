import {
  ActivityFailure,
  ApplicationFailure,
  ChildWorkflowFailure,
  condition,
  isCancellation,
  log,
  setHandler,
  TimeoutFailure,
} from '@temporalio/workflow';
import type { FailureDetails } from '../activities/failures.ts';
import { resumeSignal, type Stage, type StageStatus, type Waiting } from './messages.ts';

/**
 * Runs the stages of a release and remembers how far it is. A stage that fails for a reason that a
 * person can mend does not throw the run away: it waits for the resume signal and runs again.
 */
export class StageRunner {
  readonly #stages: Map<Stage, StageStatus>;
  readonly #waiting = new Map<Stage, Waiting>();
  /** Counts resume signals: each lets all go on that waited when it came. */
  #resumed = 0;

  /** @param stages those that this release goes through */
  constructor(stages: readonly Stage[]) {
    this.#stages = new Map(stages.map((stage) => [stage, { stage, state: 'pending' }]));
    setHandler(resumeSignal, () => {
      // A resume that nothing waits for must not let a later failure pass unseen.
      if (this.#waiting.size > 0) this.#resumed++;
    });
  }

  get stages(): readonly StageStatus[] {
    return [...this.#stages.values()];
  }

  /** The first of what it waits for. */
  get waiting(): Waiting | undefined {
    return [...this.#waiting.values()][0];
  }

  async run<T>(stage: Stage, work: () => Promise<T>): Promise<T> {
    const startedAtMs = Date.now();
    for (;;) {
      this.#stages.set(stage, { stage, state: 'running', startedAtMs });
      try {
        const result = await work();
        const finishedAtMs = Date.now();
        this.#stages.set(stage, { stage, state: 'done', startedAtMs, finishedAtMs });
        return result;
      } catch (error) {
        const waiting = isCancellation(error) ? undefined : toWaiting(stage, error);
        if (waiting === undefined) {
          this.#stages.set(stage, { stage, state: 'failed', startedAtMs });
          throw withCode(error);
        }
        log.warn('The release waits for a person', { ...waiting });
        try {
          const resumed = this.#resumed;
          await this.pause(waiting, () => condition(() => this.#resumed > resumed));
        } catch (cancellation) {
          this.#stages.set(stage, { stage, state: 'failed', startedAtMs });
          throw cancellation;
        }
      }
    }
  }

  /** Shows that a stage waits for a person while it does. */
  async pause<T>(waiting: Waiting, wait: () => Promise<T>): Promise<T> {
    const { stage } = waiting;
    const before = this.#stages.get(stage) ?? { stage };
    this.#stages.set(stage, { ...before, state: 'waiting' });
    this.#waiting.set(stage, waiting);
    try {
      return await wait();
    } finally {
      this.#waiting.delete(stage);
      this.#stages.set(stage, { ...before, state: 'running' });
    }
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
function withCode(error: unknown): unknown {
  const failure = rootFailure(error);
  if (!(failure instanceof ApplicationFailure)) return error;
  return ApplicationFailure.create({
    message: failure.message,
    type: failure.type ?? 'internal.bug',
    nonRetryable: true,
  });
}
