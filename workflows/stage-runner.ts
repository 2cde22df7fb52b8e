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
import { resumeSignal, STAGES, type Stage, type StageStatus, type Waiting } from './messages.ts';

/**
 * Runs the stages of a release and remembers how far it is. A stage that fails for a reason that a
 * person can mend does not throw the run away: it waits for the resume signal and runs again.
 */
export class StageRunner {
  readonly #stages = new Map<Stage, StageStatus>(
    STAGES.map((stage) => [stage, { stage, state: 'pending' }]),
  );
  #waiting: Waiting | undefined;
  #resumed = false;

  constructor() {
    setHandler(resumeSignal, () => {
      // A resume that nothing waits for must not let a later failure pass unseen.
      if (this.#waiting !== undefined) this.#resumed = true;
    });
  }

  get stages(): readonly StageStatus[] {
    return [...this.#stages.values()];
  }

  get waiting(): Waiting | undefined {
    return this.#waiting;
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
        this.#stages.set(stage, { stage, state: 'waiting', startedAtMs });
        try {
          await this.#resume(waiting);
        } catch (cancellation) {
          this.#stages.set(stage, { stage, state: 'failed', startedAtMs });
          throw cancellation;
        }
      }
    }
  }

  /** Waits for a person; a release that is cancelled meanwhile waits for nobody any more. */
  async #resume(waiting: Waiting): Promise<void> {
    this.#resumed = false;
    this.#waiting = waiting;
    try {
      await condition(() => this.#resumed);
    } finally {
      this.#waiting = undefined;
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
