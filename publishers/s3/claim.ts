import { WeldlineError } from '../../engine/errors.ts';
import { isAnswer } from '../../remote/s3-failure.ts';
import { notesPrefix } from './recorded-digests.ts';
import type { S3Objects } from './s3-objects.ts';

/**
 * A claim that was not renewed for so long is of somebody who is gone: much longer than one request
 * may take with all its attempts.
 */
const STALE_MS = 30 * 60 * 1000;
const RENEWAL_MS = 5 * 60 * 1000;
const CLAIM_BYTES_MAX = 4096;
/** Publications of the same artefact may come between each other; more than a few do not. */
const TAKEN_MAX = 5;

/**
 * Keeps two different artefacts from being published under one id at the same time: their files would
 * have the same keys. The same artefact may be published by several, who share the claim.
 */
export interface Claim {
  /**
   * Makes sure that it is still held; asked before anything is written under it.
   * @throws WeldlineError `publish.conflict` if it is another's now
   */
  hold(): Promise<void>;
  /** As `hold`, and asks the server in any case. */
  renew(): Promise<void>;
  /**
   * Lets others have the id at once; without it they have to wait.
   * @param objects with a signal of its own: the publication's may have aborted
   */
  release(objects: S3Objects): Promise<void>;
}

export interface ClaimOptions {
  readonly objects: S3Objects;
  readonly artefact: string;
  readonly manifestDigest: string;
  readonly planDigest: string;
  /** Where it will be, for errors. */
  readonly location: string;
  /** How old another's claim must be to be taken over. */
  readonly staleMs?: number;
}

/** @throws WeldlineError `publish.conflict` while another artefact is published under the id */
export async function claimArtefact(options: ClaimOptions): Promise<Claim> {
  let renewedMs = performance.now();
  let etag: string | undefined;
  const renew = async (): Promise<void> => {
    const startedMs = performance.now();
    const held = etag;
    etag = undefined;
    etag = await take(options, held);
    renewedMs = startedMs;
  };
  await renew();
  return {
    renew,
    hold: async () => {
      if (performance.now() - renewedMs > RENEWAL_MS) await renew();
    },
    release: async (objects) => {
      if (etag !== undefined) await objects.remove([keyOfClaim(objects, options.artefact)]);
    },
  };
}

/**
 * @param held the claim's ETag when it was last taken
 * @returns its ETag now
 */
async function take(options: ClaimOptions, held: string | undefined): Promise<string> {
  const { objects, manifestDigest, planDigest, location, staleMs = STALE_MS } = options;
  const key = keyOfClaim(objects, options.artefact);
  const bytes = Buffer.from(JSON.stringify({ manifestDigest, planDigest }));
  let expected = held;
  // Somebody may be faster; who reads it again then knows who.
  for (let attempt = 0; attempt < TAKEN_MAX; attempt++) {
    try {
      const condition = expected === undefined ? { ifAbsent: true as const } : { ifEtag: expected };
      return (await objects.put(key, bytes, condition)).etag;
    } catch (error) {
      if (!isAnswer(error, 412, 404) || isAnswer(error, 'NoSuchBucket')) throw error;
    }
    const found = await objects.readText(key, CLAIM_BYTES_MAX);
    expected = found?.etag;
    if (found === undefined || parse(found.text).manifestDigest === manifestDigest) continue;
    const { ageMs = staleMs } = (await objects.head(key)) ?? {};
    if (ageMs < staleMs) throw beingPublished(location);
  }
  throw new WeldlineError(
    'publish.unavailable',
    `${location} is claimed by several publications at once. Try again in a minute.`,
  );
}

export function keyOfClaim(objects: S3Objects, artefact: string): string {
  return `${notesPrefix(objects, artefact)}claim.json`;
}

/**
 * For what is sent while it is merged, and has no manifest that could claim anything.
 * @throws WeldlineError `publish.conflict` while what another plan makes is published under the id
 */
export async function refuseClaimed(
  objects: S3Objects,
  artefact: string,
  options: { readonly planDigest: string; readonly location: string },
): Promise<void> {
  const key = keyOfClaim(objects, artefact);
  const found = await objects.readText(key, CLAIM_BYTES_MAX);
  if (found === undefined || parse(found.text).planDigest === options.planDigest) return;
  const head = await objects.head(key);
  if (head !== undefined && head.ageMs < STALE_MS) throw beingPublished(options.location);
}

function parse(text: string): { readonly manifestDigest?: unknown; readonly planDigest?: unknown } {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

function beingPublished(location: string): WeldlineError {
  return new WeldlineError(
    'publish.conflict',
    `${location} is being published from other inputs, or was less than half an hour ago. Raise ` +
      '"version" in the recipe, or wait until that is over.',
  );
}
