import { condition, setHandler } from '@temporalio/workflow';
import type { Approval } from '../activities/quality-types.ts';
import { type ApprovalRequest, approveUpdate, type Waiting } from './messages.ts';
import type { StageRunner } from './stage-runner.ts';

/** Takes a person's word where a release waits for it. */
export class Approvals {
  readonly #runner: StageRunner;
  #wanted: Waiting | undefined;
  #given: Approval | undefined;

  constructor(runner: StageRunner) {
    this.#runner = runner;
    setHandler(approveUpdate, (request) => this.#give(request), {
      validator: (request) => this.#check(request),
    });
  }

  /** What was said last, if anything was. */
  get given(): Approval | undefined {
    return this.#given;
  }

  /** A word was given to what was looked at; what is made anew elsewhere is to be looked at anew. */
  forget(): void {
    this.#given = undefined;
  }

  /** Waits, as long as it takes. A release that is cancelled waits for nobody any more. */
  async wait(waiting: Waiting): Promise<Approval> {
    this.#wanted = waiting;
    try {
      return await this.#runner.pause(waiting, async () => {
        let approval: Approval | undefined;
        await condition(() => {
          approval = this.#wanted === undefined ? this.#given : undefined;
          return approval !== undefined;
        });
        if (approval === undefined) throw new Error('woken without an approval');
        return approval;
      });
    } finally {
      this.#wanted = undefined;
    }
  }

  #give({ by, override }: ApprovalRequest): Approval {
    const approval = {
      by,
      ...(override === undefined ? {} : { override }),
      at: new Date().toISOString(),
    };
    this.#given = approval;
    this.#wanted = undefined;
    return approval;
  }

  /** Refusals reach the person who asked, and leave nothing in the history. */
  #check({ override }: ApprovalRequest): void {
    if (this.#wanted === undefined) throw new Error('The release does not wait for approval.');
    const hasReason = (override ?? '').trim() !== '';
    if (override !== undefined && !hasReason) throw new Error('An override needs a reason.');
    if (this.#wanted.needs === 'override' && !hasReason) {
      throw new Error(
        'The gate has refused a part of this release. Give the reason why it is released all ' +
          `the same: --override "reason". ${this.#wanted.message}`,
      );
    }
  }
}
