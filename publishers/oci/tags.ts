import { sha256Of } from '../../engine/canonical-json.ts';

/** Of the specification of distribution. */
const TAG_LENGTH_MAX = 128;
/** Of the digest that takes the place of what is cut off: enough that no two names ever share one. */
const DIGEST_DIGITS = 24;
/** No artefact and no alias begins with it. */
const RECORD_PREFIX = '_alias-';

/**
 * The tag of an artefact or alias: its name, and of longer ones than a tag may be the beginning and a
 * digest.
 */
export function tagOf(name: string, lengthMax = TAG_LENGTH_MAX): string {
  if (name.length <= lengthMax) return name;
  const digest = sha256Of(name).slice(0, DIGEST_DIGITS);
  return `${name.slice(0, lengthMax - DIGEST_DIGITS - 1)}-${digest}`;
}

export function aliasTagOf(alias: string, part: string | undefined): string {
  const name = part === undefined ? alias : `${alias}-${part}`;
  return tagOf(name, TAG_LENGTH_MAX - RECORD_PREFIX.length);
}

/** The tag beside an alias, under which its history is. */
export function recordTagOf(aliasTag: string): string {
  return `${RECORD_PREFIX}${aliasTag}`;
}

export function isRecordTag(tag: string): boolean {
  return tag.startsWith(RECORD_PREFIX);
}
