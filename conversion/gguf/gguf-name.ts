/** Characters that are safe in a file name everywhere; others become hyphens. */
const UNSAFE = /[^A-Za-z0-9._-]+/g;
const LENGTH_MAX = 200;

/** A model's name as part of a file name. */
export function fileNamePart(name: string): string {
  const safe = name.replace(UNSAFE, '-').replace(/^[-.]+/, '');
  return safe.slice(0, LENGTH_MAX) || 'model';
}
