import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { WeldlineError } from '../errors.ts';

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const natural = z.number().int().nonnegative();

/**
 * The journal of an output shard: lines of JSON, appended after the bytes they speak of were
 * written. The first line names the plan and the shard; each further one how far the file was
 * written by then, with the SHA-256 of all its bytes up to there (of a shard that is sent away, a part of
 * it that has arrived); a finished shard ends with its size and SHA-256.
 *
 * The digest of a file that is hashed from its start is known at any point, so these cost nothing
 * beside the shard's own, and they do not depend on how an attempt cuts the shard.
 */
const headSchema = z.object({ journal: z.literal(2), plan: z.string(), shard: z.string() });

const prefixSchema = z.object({
  /** Bytes from the start of the file. */
  end: natural,
  sha256: digest,
  /** Which state of the inputs the bytes were made from: see `input-state.ts`. */
  inputs: z.string(),
});

const completeSchema = z.object({
  size: natural,
  sha256: digest,
  /** Of a shard that is sent away: what tells it from another file in its place. */
  etag: z.string().optional(),
});

/** Of a shard that is sent away: a part that has arrived. */
const sentPartSchema = z.object({
  upload: z.string(),
  /** From 1. */
  number: natural,
  size: natural,
  etag: z.string(),
  sha256: digest,
  inputs: z.string(),
});

export type JournalHead = z.infer<typeof headSchema>;
export type WrittenPrefix = z.infer<typeof prefixSchema>;
export type CompletedShard = z.infer<typeof completeSchema>;
export type JournalledPart = z.infer<typeof sentPartSchema>;

export interface JournalState {
  readonly prefixes: readonly WrittenPrefix[];
  readonly complete: CompletedShard | undefined;
  /** Absent where the shard is a file on this machine. */
  readonly parts?: readonly JournalledPart[] | undefined;
}

export function formatLine(
  line: JournalHead | WrittenPrefix | JournalledPart | CompletedShard,
): string {
  return `${JSON.stringify(line)}\n`;
}

/**
 * Reads a journal. A crash can cut or garble a line, and attempts that overlap can write theirs into
 * one another (appending is no single step on a network's file system). What is not a sound line is
 * passed over; the others are believed, and verified against the data by the caller.
 *
 * @returns undefined if there is none, or it does not say whose it is
 * @throws WeldlineError `journal.invalid` if it belongs to another plan or shard
 */
export async function readJournal(
  path: string,
  expected: JournalHead,
): Promise<JournalState | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new WeldlineError('disk.read-failed', `The journal ${path} cannot be read.`, {
      cause: error,
    });
  }
  return parseJournal(bytes.toString('utf8'), path, expected);
}

export function parseJournal(
  text: string,
  path: string,
  expected: JournalHead,
): JournalState | undefined {
  const prefixes: WrittenPrefix[] = [];
  const parts: JournalledPart[] = [];
  let complete: CompletedShard | undefined;
  let isOurs = false;
  for (const line of text.split('\n').slice(0, -1)) {
    const value = parseLine(line);
    const head = headSchema.safeParse(value);
    if (head.success) {
      checkOwner(head.data, expected, path);
      isOurs = true;
    } else if (isOurs) {
      const prefix = prefixSchema.safeParse(value);
      const part = sentPartSchema.safeParse(value);
      const end = completeSchema.safeParse(value);
      if (prefix.success) prefixes.push(prefix.data);
      else if (part.success) parts.push(part.data);
      else if (end.success) complete = end.data;
    }
  }
  if (!isOurs) return undefined;
  return { prefixes, complete, ...(parts.length > 0 && { parts }) };
}

function checkOwner(head: JournalHead, expected: JournalHead, path: string): void {
  if (head.plan === expected.plan && head.shard === expected.shard) return;
  throw new WeldlineError(
    'journal.invalid',
    `${path} belongs to another merge (plan ${head.plan.slice(0, 12)}). Move it away.`,
  );
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
