import type { ReleaseContext } from './types.ts';

/** A release as later runs of its recipe look back at it. Plain data: files and histories hold it. */
export interface PublishedRelease {
  readonly artefact: string;
  readonly version: string;
  /** When its run began; ISO 8601, UTC. The later of two is the last one. */
  readonly startedAt: string;
  /**
   * Digests of all that decides a release but its version, by what a person calls it: `base`,
   * `adapter <id>`, `recipe`, and the paths of data that the recipe names.
   */
  readonly inputs: Readonly<Record<string, string>>;
}

/** What is to be known of a night before it begins. */
export interface NightInput extends ReleaseContext {
  /** The moment it is scheduled for; ISO 8601, UTC. */
  readonly nominalTime: string;
  /** Of `{date}` and `{time}`; an IANA name. */
  readonly timeZone: string;
  /** What earlier nights of the schedule know; workers without a common home know no other. */
  readonly last?: PublishedRelease | undefined;
}

/** What there is to do in a night. */
export interface Night {
  readonly version: string;
  readonly inputs: PublishedRelease['inputs'];
  /** The last release, where nothing has changed since and it is still where it was published. */
  readonly unchangedSince?: PublishedRelease;
  /** Why there is something to release, for people. */
  readonly reason: string;
}
