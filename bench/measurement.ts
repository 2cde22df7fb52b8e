/** What one run of a program took. Fields that the system does not tell are absent or zero. */
export interface Measurement {
  /** By the clock, from before the start of the process until its output is on disk. */
  readonly seconds: number;
  /** Processor time of all threads. */
  readonly userSeconds: number;
  readonly systemSeconds: number;
  /** The most resident memory; of a release, of the process whose worker merges. */
  readonly peakMemoryBytes: number;
  /** Parts of `seconds` that the program reports itself. */
  readonly parts?: Readonly<Record<string, number>>;
  /** Peak memory of what the program started, by the name of the command. */
  readonly childMemoryBytes?: Readonly<Record<string, number>>;
  /** What happened meanwhile on the device that holds the data, whoever caused it. */
  readonly disk?: DiskActivity;
}

export interface DiskActivity {
  /** The share of the time in which the device had something to do, 0 to 1. */
  readonly busyShare: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** The measurements of one round, by contestant; one that is missing on this machine has none. */
export type Round = Readonly<Record<string, Measurement>>;

/** A program that takes part in a case. */
export interface Contestant {
  readonly name: string;
  /** Files and directories that it reads: what is brought into the cache, or out of it. */
  readonly inputs: readonly string[];
  /** The state of the cache in which it runs, where that is not the one of its case. */
  readonly cache?: CacheState;
  /** Why it cannot run here, and the command that changes that. */
  readonly missing?: string;
  /** Once before the rounds, untimed. */
  prepare?(signal: AbortSignal): Promise<void>;
  /** Before every run, untimed. */
  reset?(signal: AbortSignal): Promise<void>;
  /** Writes its result, if it has one, to `output`, which does not exist, and syncs it. */
  run(output: string, signal: AbortSignal): Promise<Measurement>;
}

/** Whether inputs are in the page cache when a run begins. */
export type CacheState = 'warm' | 'cold';
