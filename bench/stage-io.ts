import { setTimeout as sleep } from 'node:timers/promises';
import { type ReleaseStatus, STAGES, type Stage, statusQuery } from '../workflows/messages.ts';
import { ioOf, type ProcessIo } from './process-io.ts';

const POLL_MS = 50;

interface Followed {
  query(query: typeof statusQuery): Promise<ReleaseStatus>;
}

/** Adds up what a worker reads and writes while a stage runs. */
export class StageIo {
  readonly #stages = new Map<Stage, ProcessIo>();
  #pid: number;
  #last: ProcessIo;

  constructor(pid: number) {
    this.#pid = pid;
    this.#last = ioOf(pid);
  }

  /** Another process does the work from here on. */
  changeProcess(pid: number): void {
    this.#pid = pid;
    this.#last = { read: 0, written: 0 };
  }

  of(stage: Stage): ProcessIo {
    return this.#stages.get(stage) ?? { read: 0, written: 0 };
  }

  get stages(): readonly (readonly [Stage, ProcessIo])[] {
    return STAGES.flatMap((stage) => {
      const io = this.#stages.get(stage);
      return io === undefined ? [] : [[stage, io] as const];
    });
  }

  /** Counts what was done since the last time as work of `stage`. */
  count(stage: Stage): void {
    const now = ioOf(this.#pid);
    const before = this.of(stage);
    this.#stages.set(stage, {
      read: before.read + Math.max(0, now.read - this.#last.read),
      written: before.written + Math.max(0, now.written - this.#last.written),
    });
    if (now.read > 0) this.#last = now;
  }

  /** Follows a release until it has ended or `isEnough` says so. */
  async follow(
    release: Followed,
    isEnough: (status: ReleaseStatus) => Promise<boolean>,
  ): Promise<void> {
    for (;;) {
      const status = await release.query(statusQuery);
      const { stages } = status;
      const running = stages.find(({ state }) => state === 'running')?.stage;
      this.count(running ?? (stages.at(-1)?.state === 'done' ? 'report' : 'resolve'));
      if (stages.at(-1)?.state === 'done' || stages.some(({ state }) => state === 'failed')) return;
      if (await isEnough(status)) return;
      await sleep(POLL_MS);
    }
  }
}
