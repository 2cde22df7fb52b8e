import { z } from 'zod';
import type { Artefact, ArtefactId } from '../publisher.ts';

/**
 * What weldline notes of a model in Ollama: which artefact it is, and of an alias where it pointed.
 *
 * It is a text among the model's licences. Those are the only texts of a model that neither reach it
 * nor change how it answers, that copies keep, and that `ollama show` prints and gives back.
 */
export interface OllamaRecord extends ArtefactId {
  readonly manifestDigest: string;
  readonly planDigest: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** Of the recipe. */
  readonly name: string;
  /** SHA-256 of the weights, hex. */
  readonly weights: string;
}

export interface AliasRecord {
  readonly alias: string;
  readonly history: readonly string[];
}

const RELEASE_LINE = 'weldline release: ';
const ALIAS_LINE = 'weldline alias: ';

const release = z.object({
  release: z.string(),
  part: z.string().optional(),
  manifestDigest: z.string(),
  planDigest: z.string(),
  createdAt: z.string(),
  name: z.string(),
  weights: z.string(),
});
const alias = z.object({ alias: z.string(), history: z.array(z.string()) });

/** @param weights SHA-256 of its GGUF, hex */
export function recordOf(artefact: Artefact, weights: string): OllamaRecord {
  const { release: version, part, manifestDigest, planDigest, description } = artefact;
  const { createdAt, name } = description;
  const id = { release: version, ...(part !== undefined && { part }) };
  return { ...id, manifestDigest, planDigest, createdAt, name, weights };
}

/** A record as the text of a licence. */
export function writeRecord(record: OllamaRecord): string {
  return RELEASE_LINE + JSON.stringify(record);
}

export function writeAliasRecord({ alias: name, history }: AliasRecord): string {
  return ALIAS_LINE + JSON.stringify({ alias: name, history });
}

/** The last record among a model's licences; undefined for a model that weldline did not make. */
export function readRecord(license: string): OllamaRecord | undefined {
  const found = lineOf(license, RELEASE_LINE, release);
  if (found === undefined) return undefined;
  const { part, ...record } = found;
  return { ...record, ...(part !== undefined && { part }) };
}

/** Undefined for a model that is no alias. */
export function readAliasRecord(license: string): AliasRecord | undefined {
  // Behind the release's: what stands before it is the text of somebody else.
  return lineOf(license.slice(license.lastIndexOf(RELEASE_LINE)), ALIAS_LINE, alias);
}

function lineOf<T>(license: string, start: string, schema: z.ZodType<T>): T | undefined {
  const line = license.split('\n').findLast((each) => each.startsWith(start));
  if (line === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(line.slice(start.length)));
  } catch {
    return undefined;
  }
}
