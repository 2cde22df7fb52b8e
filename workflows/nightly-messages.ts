/** What a schedule tells its nights, and what they tell of themselves. */
import type { PublishedRelease } from '../activities/night-types.ts';
import type { ReleaseInput, ReleaseResult } from './messages.ts';

/** The recipe's version is a rule; its recipe asks nobody unless it says so itself. */
export interface NightlyInput extends ReleaseInput {
  /** As it was written: servers keep only what it comes to. */
  readonly cron: readonly string[];
  /** Of `{date}` and `{time}`; an IANA name. */
  readonly timeZone: string;
  /**
   * After this long a night is given up, with what it waited for as the reason. Shorter than the
   * execution timeout, by which the server ends a night without a word.
   */
  readonly nightTimeoutMs: number;
}

/** What a night ended with; a schedule hands it to the next one. */
export type NightResult = {
  readonly version: string;
  /** The last release of the recipe. */
  readonly last: PublishedRelease;
} & (
  | { readonly outcome: 'unchanged' }
  | { readonly outcome: 'released'; readonly workflowId: string; readonly release: ReleaseResult }
);

/** Name of the memo in which a night tells how it is; lists show it without asking a worker. */
export const NIGHT_MEMO = 'night';

export interface NightMemo {
  /** The moment it is scheduled for; ISO 8601, UTC. */
  readonly nominalTime: string;
  readonly state: 'looking' | 'releasing' | 'unchanged' | 'released' | 'failed';
  readonly version?: string;
  /** The release of this night, or the one that nothing has changed since. */
  readonly release?: string;
  /** Why, for people. */
  readonly detail?: string;
}
