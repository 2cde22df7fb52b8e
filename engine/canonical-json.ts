import { createHash } from 'node:crypto';

/**
 * JSON with keys sorted by UTF-16 code units at every level and no white space: equal values give
 * equal text on every machine. `undefined` members are left out, as `JSON.stringify` does.
 */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  let members = '';
  for (const key of Object.keys(value).sort()) {
    const member: unknown = value[key as keyof typeof value];
    if (member === undefined) continue;
    members += `${members === '' ? '' : ','}${JSON.stringify(key)}:${canonicalJson(member)}`;
  }
  return `{${members}}`;
}

/** SHA-256 over the canonical JSON, as 64 hexadecimal digits. */
export function digestOf(value: unknown): string {
  return sha256Of(canonicalJson(value));
}

/** SHA-256 over the text in UTF-8, as 64 hexadecimal digits. */
export function sha256Of(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
