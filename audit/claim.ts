import { type ErrorCode, WeldlineError } from '../engine/errors.ts';

/** What an artefact says of itself, in the order in which it is checked. */
export const CLAIM_NAMES = [
  'files',
  'manifest',
  'tensors',
  'provenance',
  'bom',
  'signature',
  'adapters',
  'plan',
  'rows',
] as const;
export type ClaimName = (typeof CLAIM_NAMES)[number];

/** What became of one claim. */
export interface Claim {
  readonly claim: ClaimName;
  readonly status: 'verified' | 'failed' | 'not-checked';
  /** What was found, what is wrong, or why it was not checked: a sentence for people. */
  readonly text: string;
  /** Why it failed, for programs. */
  readonly code?: ErrorCode;
}

export type Finding = Omit<Claim, 'claim'>;

export function verified(text: string): Finding {
  return { status: 'verified', text };
}

export function notChecked(why: string): Finding {
  return { status: 'not-checked', text: why };
}

export function failed(code: ErrorCode, text: string): Finding {
  return { status: 'failed', text, code };
}

/** Of errors that say nothing of the artefact, but that it could not be looked at. */
const NOT_OF_THE_ARTEFACT = /^(hub|source|disk|config|internal|kernel)\.|\.unavailable$/;

/**
 * Checks one claim: what a check throws about the artefact is what is wrong with it.
 * @throws what says nothing of the artefact: networks, disks, an abort
 */
export async function checkClaim(claim: ClaimName, check: () => Promise<Finding>): Promise<Claim> {
  try {
    const finding = await check();
    return { claim, ...finding, text: printable(finding.text) };
  } catch (error) {
    if (!(error instanceof WeldlineError) || NOT_OF_THE_ARTEFACT.test(error.code)) throw error;
    return { claim, ...failed(error.code, printable(error.message)) };
  }
}

/** Names of files and runs come from elsewhere, and terminals obey what is in them. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, '\u{fffd}');
}

/** More names than this are counted only. */
const NAMES_MAX = 5;

/** `a, b and 3 more`. */
export function namesOf(paths: readonly string[]): string {
  const shown = paths.slice(0, NAMES_MAX).map((path) => path.slice(0, 200));
  const more = paths.length - shown.length;
  return `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
